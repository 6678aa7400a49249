// npm run bench: measures an optimised build. Arguments go to bench/run.mjs.
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { build } from './tasks/build.mjs';
import { install } from './tasks/install.mjs';
import { main, npm, root, run, step } from './tasks/steps.mjs';

await main('bench', async () => {
  await install();
  if (!existsSync(join(root, 'bench', 'node_modules'))) {
    await step('install the queues to measure against (npm ci in bench)', () => npm(['ci', '--prefix', 'bench', '--no-audit', '--no-fund', '--loglevel=error']));
  }
  await build({ release: true });
  run(process.execPath, ['bench/run.mjs', ...process.argv.slice(2)]);
});
