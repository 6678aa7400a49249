// npm run check: everything that a reviewer would otherwise have to say, without the tests.
import { build } from './tasks/build.mjs';
import { checkFeatures, checkPackage, checkRust, checkTypeScript } from './tasks/checks.mjs';
import { assertUnchanged, snapshot } from './tasks/generated.mjs';
import { install } from './tasks/install.mjs';
import { main, step } from './tasks/steps.mjs';

await main('check', async () => {
  await install();
  const before = snapshot();
  await build();
  await checkFeatures();
  await checkRust();
  await checkTypeScript();
  await step('generated files', () => assertUnchanged(before));
  await checkPackage();
});
