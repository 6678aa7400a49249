// npm run chaos:planted: the chaos harness against engines with faults planted in them. It fails when it finds nothing.
import { build, isStale } from './tasks/build.mjs';
import { install } from './tasks/install.mjs';
import { findPlanted } from './tasks/planted.mjs';
import { main } from './tasks/steps.mjs';

await main('chaos:planted', async () => {
  await install();
  if (isStale()) await build();
  await findPlanted();
});
