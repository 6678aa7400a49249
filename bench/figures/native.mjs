// The same without JavaScript: the engine's manager driven from Rust by an adapter that does nothing.
import { spawnSync } from 'node:child_process';
import { root } from '../support.mjs';

let program;

export default {
  title: '1 job x 10,000 and x 100,000 chunks by a native adapter that does nothing',
  prepare() {
    const args = ['bench', '--package', 'framewright-core', '--bench', 'native_adapter', '--no-run', '--message-format', 'json'];
    const built = spawnSync('cargo', args, { cwd: root, encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'], maxBuffer: 1 << 28 });
    if (built.status !== 0) throw new Error('cargo bench could not build native_adapter');
    const messages = built.stdout.split('\n').filter(Boolean).map((line) => JSON.parse(line));
    program = messages.findLast((message) => message.executable && message.target?.name === 'native_adapter').executable;
  },
  sides: { 10000: { command: () => [program, '10000'] }, 100000: { command: () => [program, '100000'] } },
  rows(m) {
    const rows = Object.entries(m).flatMap(([size, one]) => {
      const what = `1 x ${Number(size).toLocaleString('en-US')}`;
      return [
        { what, value: one.perSecond, unit: 'chunks/s', target: '>= 1,000,000', met: one.perSecond >= 1_000_000 },
        { what: `${what}, with words and environment built`, value: one.builtPerSecond, unit: 'chunks/s' },
        { what: `${what}: parsing the spec`, value: one.parseNs, unit: 'ns/chunk' },
      ];
    });
    return rows;
  },
};
