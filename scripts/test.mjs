// npm test: on a fresh clone it installs, builds, checks and tests everything. Arguments go to vitest.
import { build } from './tasks/build.mjs';
import { checkFeatures, checkPackage, checkRust, checkTypeScript, testRust } from './tasks/checks.mjs';
import { assertUnchanged, snapshot } from './tasks/generated.mjs';
import { install } from './tasks/install.mjs';
import { findPlanted } from './tasks/planted.mjs';
import { startServices } from './tasks/services.mjs';
import { main, step, tool } from './tasks/steps.mjs';

await main('test', async () => {
  await install();
  const before = snapshot();
  await build();
  await checkFeatures();
  await checkRust();
  await startServices();
  await testRust();
  await checkTypeScript();
  await step('generated files', () => assertUnchanged(before));
  await checkPackage();
  await step('tests (vitest run)', () => tool('vitest', ['run', ...process.argv.slice(2)]));
  // What is asked for by name is all that is wanted.
  if (process.argv.length === 2) await findPlanted();
});
