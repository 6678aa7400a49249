// npm run pack:all: makes the tarballs of the main package and of this platform's package in artifacts/.
// --out <folder>: elsewhere; --no-build: from what was built last.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { build } from './tasks/build.mjs';
import { install } from './tasks/install.mjs';
import { packDirectory, stageMain, stagePlatform } from './tasks/package.mjs';
import { main, root, step } from './tasks/steps.mjs';

const { values } = parseArgs({ options: { out: { type: 'string', default: join(root, 'artifacts') }, 'no-build': { type: 'boolean', default: false } } });
const out = resolve(values.out);

await main('pack', async () => {
  if (!values['no-build']) {
    await install();
    await build({ release: true });
  }
  const staging = mkdtempSync(join(tmpdir(), 'framewright-pack-'));
  try {
    await step('main package', () => packDirectory(stageMain(join(staging, 'main')), out));
    await step('platform package', () => packDirectory(stagePlatform(join(staging, 'platform')), out));
  } finally {
    rmSync(staging, { recursive: true, force: true });
  }
});
