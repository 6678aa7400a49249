// A package with faults planted in its engine, for the chaos harness to find; apart from what is built and shipped.
import { spawnSync } from 'node:child_process';
import { copyFileSync, cpSync, mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { addonFile } from './build.mjs';
import { StepFailed, output, root, step } from './steps.mjs';

const FEATURES = ['planted-faults', 'simulation'];
/** Each fault, and the promise of which the harness has to say that it is broken (chaos/check.mjs). */
const FAULTS = {
  'version-check': 'no update is lost',
  'lease-renewal': 'an owner that lives notices the loss before the end of its lease',
};

/** Runs the harness on each fault; it has to find it. The same runs of the package as it is find nothing (__test__/chaos.test.ts). */
export async function findPlanted() {
  const folder = await step('addon with planted faults (cargo build)', buildPlanted);
  for (const [fault, promise] of Object.entries(FAULTS)) {
    await step(`the harness finds: ${fault}`, () => {
      const env = { ...process.env, FRAMEWRIGHT_PLANTED: fault };
      const { status, stdout } = spawnSync(process.execPath, ['chaos/main.mjs', '--store', 'sqlite', '--seed', '1', '--kills', '6'], { cwd: folder, env, encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] });
      console.log(stdout.replace(/^(.{300}).*$/gm, '$1 ...'));
      if (status !== 1 || !stdout.includes(`✗ ${promise}`)) throw new StepFailed(`the harness has not found the planted fault ${fault}`);
    });
  }
}

/** Builds the addon with the feature `planted-faults` and lays out a package around it; gives its folder. */
export function buildPlanted() {
  const name = addonFile();
  if (!name) throw new StepFailed('the package is to be built first: npm run build');
  const host = /^host: (.+)$/m.exec(output('rustc', ['-vV']))?.[1];
  const features = ['--features', 'framewright-core/planted-faults'];
  // Cargo says which file it made; the one of the package, built last in its place, is not it.
  const messages = output('cargo', ['build', '--package', 'framewright-node', ...features, '--target', host, '--message-format', 'json-render-diagnostics']);
  const library = messages
    .split('\n')
    .filter((line) => line.startsWith('{'))
    .map((line) => JSON.parse(line))
    .filter((message) => message.reason === 'compiler-artifact' && message.target.name === 'framewright_node')
    .flatMap((message) => message.filenames)
    .find((file) => /\.(so|dylib|dll)$/.test(file));
  if (!library) throw new StepFailed('cargo did not say where the addon with planted faults is');
  const folder = join(root, 'target', 'planted');
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  for (const file of ['dist', 'package.json', 'chaos']) cpSync(join(root, file), join(folder, file), { recursive: true });
  copyFileSync(library, join(folder, name));
  return folder;
}

/** Fails when the addon that is shipped would have what only tests may have. */
export function assertNothingPlanted() {
  const tree = output('cargo', ['tree', '--package', 'framewright-node', '--edges', 'features,normal,build', '--prefix', 'none', '--format', '{p} {f}']);
  const found = FEATURES.filter((feature) => tree.split('\n').some((line) => /^framewright-core /.test(line) && line.includes(feature)));
  if (found.length > 0) throw new StepFailed(`the addon would be built with ${found.join(' and ')} of framewright-core, which only tests may have`);
}
