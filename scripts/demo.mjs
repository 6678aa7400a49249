// npm run demo: builds what is stale, then renders the demo. Arguments go to the demo.
import { build, isStale } from './tasks/build.mjs';
import { install } from './tasks/install.mjs';
import { main, run } from './tasks/steps.mjs';

await main('demo', async () => {
  await install();
  if (isStale()) await build();
  run(process.execPath, ['examples/demo/demo.mjs', ...process.argv.slice(2)]);
});
