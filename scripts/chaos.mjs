// npm run chaos: builds when sources have changed, then runs the chaos harness. Arguments go to chaos/main.mjs.
import { build, isStale } from './tasks/build.mjs';
import { install } from './tasks/install.mjs';
import { main, run } from './tasks/steps.mjs';

await main('chaos', async () => {
  await install();
  if (isStale()) await build();
  run(process.execPath, ['chaos/main.mjs', ...process.argv.slice(2)]);
});
