// The generated files that are committed: where they stand, how the types are written, and whether they moved.
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { StepFailed, root, tool } from './steps.mjs';

const generated = ['index.d.ts', 'index.d.mts', 'framewright/binding.d.ts'];

function read(file) {
  const path = join(root, file);
  return existsSync(path) ? readFileSync(path, 'utf8') : undefined;
}

/** Bundles the public types: index.d.ts for `require`, index.d.mts for `import`. */
export function writeTypes() {
  tool('rollup', ['--config', 'rollup.types.config.mjs', '--silent']);
  writeFileSync(join(root, 'index.d.mts'), "// Written by `npm run build`.\nexport * from './index.js';\n");
}

/** What the generated files hold now; take it before a build and hand it to `assertUnchanged` after it. */
export function snapshot() {
  return new Map(generated.map((file) => [file, read(file)]));
}

export function assertUnchanged(before) {
  const moved = generated.filter((file) => read(file) !== before.get(file));
  if (moved.length === 0) return;
  throw new StepFailed(
    `the build changed ${moved.join(', ')}: what is committed does not match the sources. ` +
      `It has been written anew just now (by hand: npm run build); look at it with git diff and commit it.`,
  );
}
