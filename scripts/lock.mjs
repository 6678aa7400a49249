// npm run lock: brings package-lock.json up to date after a change of dependencies, and makes it whole.
//
// A package names a prebuilt binary for every platform as an optional dependency. When a registry lacks some of them,
// npm leaves them out of the lock file without a word, and then `npm ci` refuses that lock file. The missing entries
// are written here from what their parents say; npm skips them on every platform but their own.
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { main, npm, root, step } from './tasks/steps.mjs';

const lockFile = join(root, 'package-lock.json');
const systems = ['android', 'darwin', 'freebsd', 'linux', 'openbsd', 'openharmony', 'win32'];
const processors = ['arm64', 'arm', 'ia32', 'loong64', 'ppc64', 'riscv64', 's390x', 'wasm32', 'x64'];

/** Reads the platform from a name such as `@rollup/rollup-linux-arm64-musl`. */
function platformOf(name) {
  const words = name.split('/').pop().split('-');
  const os = words.filter((word) => systems.includes(word));
  const cpu = words.filter((word) => processors.includes(word));
  const libc = words.includes('musl') ? ['musl'] : words.includes('gnu') && os.includes('linux') ? ['glibc'] : [];
  return Object.fromEntries(Object.entries({ os, cpu, libc }).filter(([, values]) => values.length > 0));
}

/** The entry a package at `path` would load `name` from, looking outwards as Node does. */
function resolve(packages, path, name) {
  for (let folder = path; ; folder = folder.slice(0, Math.max(0, folder.lastIndexOf('/node_modules/')))) {
    const candidate = `${folder ? `${folder}/` : ''}node_modules/${name}`;
    if (packages[candidate]) return packages[candidate];
    if (!folder) return undefined;
  }
}

function complete(lock) {
  const added = {};
  for (const [path, entry] of Object.entries(lock.packages)) {
    for (const [name, version] of Object.entries(path === '' ? {} : (entry.optionalDependencies ?? {}))) {
      if (resolve(lock.packages, path, name)) continue;
      if (!/^\d/.test(version)) throw new Error(`${path} wants ${name} ${version}: no exact version to lock`);
      added[`node_modules/${name}`] = { version, ...platformOf(name), dev: true, optional: true };
    }
  }
  const [[top, rootEntry], ...others] = Object.entries(lock.packages);
  const sorted = [...others, ...Object.entries(added)].sort(([a], [b]) => a.localeCompare(b, 'en'));
  return { lock: { ...lock, packages: Object.fromEntries([[top, rootEntry], ...sorted]) }, count: Object.keys(added).length };
}

await main('lock', async () => {
  await step('resolve (npm install --package-lock-only)', () => npm(['install', '--package-lock-only', '--no-audit', '--no-fund', '--loglevel=error']));
  await step('complete', () => {
    const resolved = JSON.parse(readFileSync(lockFile, 'utf8'));
    for (const [path, entry] of Object.entries(resolved.packages)) if (path !== '' && !entry.version && !entry.link) delete resolved.packages[path];
    const { lock, count } = complete(resolved);
    writeFileSync(lockFile, `${JSON.stringify(lock, null, 2)}\n`);
    console.log(`${count} entries of other platforms added`);
  });
});
