// npm test: on a fresh clone it installs, builds, checks and tests everything. Arguments go to vitest.
import { build } from './tasks/build.mjs';
import { checkPackage, checkRust, checkTypeScript, testRust } from './tasks/checks.mjs';
import { assertUnchanged, snapshot } from './tasks/generated.mjs';
import { install } from './tasks/install.mjs';
import { main, step, tool } from './tasks/steps.mjs';

await main('test', async () => {
  await install();
  const before = snapshot();
  await build();
  await checkRust();
  await testRust();
  await checkTypeScript();
  await step('generated files', () => assertUnchanged(before));
  await checkPackage();
  await step('tests (vitest run)', () => tool('vitest', ['run', ...process.argv.slice(2)]));
});
