/** Reads everything that the store has in the end into the history. */
import { JobManager } from 'framewright';

const MARKER = 'marker';

export async function audit(repository, history, leaseMs) {
  const manager = new JobManager(repository, undefined, { leaseMs });
  // The last event of the log: up to here it is read.
  await manager.submitJob({ chunks: [{ id: 0, command: 'true' }] }, { id: MARKER });
  for await (const event of manager.events({ fromSequence: 0 })) {
    history.add('event', { event });
    if (event.jobId === MARKER && event.type === 'job.submitted') break;
  }
  for (const { id } of await manager.listJobs()) {
    if (id === MARKER) continue;
    const { spec: _spec, record: _record, logs: _logs, ...status } = await manager.getJob(id);
    const rows = await manager.chunks(id);
    history.add('job', { status, rows: rows.map(({ id: chunk, state, attempt }) => ({ chunk, state, attempt })) });
  }
  await manager.close();
  history.add('audited');
}
