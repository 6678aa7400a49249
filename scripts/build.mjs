// npm run build: a debug build in place; --release: an optimised one.
import { build } from './tasks/build.mjs';
import { install } from './tasks/install.mjs';
import { main } from './tasks/steps.mjs';

await main('build', async () => {
  await install();
  await build({ release: process.argv.includes('--release') });
});
