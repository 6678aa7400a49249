// How long a job takes from its submit to its start, at 50 jobs a second on durable stores.
import { latency, postgres, sqlite } from '../durable.mjs';

const JOBS = 500;

export default {
  title: 'submit to start at 50 jobs/s',
  sides: {
    'SQLite, full': { run: () => sqlite('full')((open) => latency(open, JOBS)) },
    PostgreSQL: { run: () => postgres((open) => latency(open, JOBS)) },
  },
  rows: (m) =>
    Object.entries(m).flatMap(([name, times]) =>
      ['submitted', 'started', 'ended'].map((what) => ({
        what: `${name}: submit to ${what === 'submitted' ? 'its acknowledgement' : what === 'started' ? 'start' : 'end'}, p50 (p99)`,
        value: `${times[`${what}P50`].toFixed(2)} (${times[`${what}P99`].toFixed(2)})`,
        unit: 'ms',
      })),
    ),
};
