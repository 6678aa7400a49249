// npm run bench: measures an optimised build. Arguments go to bench/run.mjs.
import { build } from './tasks/build.mjs';
import { install } from './tasks/install.mjs';
import { main, run } from './tasks/steps.mjs';

await main('bench', async () => {
  await install();
  await build({ release: true });
  run(process.execPath, ['bench/run.mjs', ...process.argv.slice(2)]);
});
