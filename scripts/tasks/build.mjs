// Builds the package in place: the addon, dist/ in CommonJS, its ESM door, the public types.
import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import { writeTypes } from './generated.mjs';
import { StepFailed, root, step, tool } from './steps.mjs';

const esmDoor = join(root, 'dist', 'index.mjs');

/** Where the addon of this machine's platform is, if it is built. */
export function addonFile() {
  return readdirSync(root).find((name) => /^framewright\..+\.node$/.test(name));
}

function buildAddon(release) {
  const args = ['build', '--platform', '--no-js', '--dts', 'framewright/binding.d.ts'];
  tool('@napi-rs/cli', release ? [...args, '--release'] : args, { bin: 'napi' });
}

/** Removes what is left of sources that were moved or deleted, so that it is not shipped; dist/ itself is never missing meanwhile. */
function removeOrphans(output, source) {
  for (const entry of readdirSync(join(root, output), { recursive: true, withFileTypes: true })) {
    if (!entry.isFile() || !entry.name.endsWith('.js')) continue;
    const file = relative(join(root, output), join(entry.path, entry.name));
    if (!existsSync(join(root, source, file.replace(/\.js$/, '.ts')))) rmSync(join(root, output, file));
  }
}

/** `import` gets the very objects that `require` gets: every name is handed on from the CommonJS module, none is made twice. */
function writeEsmDoor() {
  const list = "process.stdout.write(JSON.stringify(Object.keys(require('./dist/index.js'))))";
  let names;
  try {
    names = JSON.parse(execFileSync(process.execPath, ['-e', list], { cwd: root, encoding: 'utf8' }));
  } catch (error) {
    throw new StepFailed(`dist/index.js cannot be loaded: ${error.message}`);
  }
  const exports = names.filter((name) => name !== '__esModule' && name !== 'default').sort();
  const lines = exports.map((name) => `export const ${name} = framewright.${name};`);
  writeFileSync(esmDoor, `import framewright from './index.js';\n\n${lines.join('\n')}\n`);
}

export async function build({ release = false } = {}) {
  await step(`addon (napi build${release ? ' --release' : ''})`, () => buildAddon(release));
  await step('dist (tsc)', () => {
    tool('typescript', ['--project', 'tsconfig.json'], { bin: 'tsc' });
    removeOrphans('dist', 'framewright');
    writeEsmDoor();
  });
  await step('types (rollup)', writeTypes);
}

function newest(path) {
  const stat = statSync(path, { throwIfNoEntry: false });
  if (!stat) return 0;
  if (!stat.isDirectory()) return stat.mtimeMs;
  return Math.max(0, ...readdirSync(path).map((name) => newest(join(path, name))));
}

/** Whether a source is newer than what was built last, or nothing was built yet. */
export function isStale() {
  const addon = addonFile();
  if (!addon || !existsSync(esmDoor)) return true;
  const binding = join(root, 'framewright', 'binding.d.ts');
  const native = ['Cargo.toml', 'Cargo.lock', 'build.rs', 'src', 'core/Cargo.toml', 'core/src'];
  const typescript = readdirSync(join(root, 'framewright')).map((name) => join('framewright', name));
  const sources = [...native, ...typescript, 'tsconfig.json', 'package.json'].map((name) => join(root, name)).filter((path) => path !== binding);
  return Math.max(...sources.map(newest)) > newest(esmDoor);
}
