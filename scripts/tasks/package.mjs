// Makes the tarballs: the main package and one for the platform of this machine.
//
// The main package names its platform packages only in what is packed. In the repository it cannot: npm refuses
// a lock file that lacks a package, and a version not yet published is not in any registry to be locked.
import { cpSync, existsSync, mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { addonFile } from './build.mjs';
import { StepFailed, npm, root } from './steps.mjs';

const alwaysShipped = ['README.md', 'LICENSE'];

function readManifest(folder) {
  return JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'));
}

function writeManifest(folder, manifest) {
  writeFileSync(join(folder, 'package.json'), `${JSON.stringify(manifest, null, 2)}\n`);
}

function platformPackages() {
  return readdirSync(join(root, 'npm')).map((name) => readManifest(join(root, 'npm', name)).name).sort();
}

function emptyFolder(folder) {
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
}

/** Lays out the main package in `folder`: its files, and a package.json with the platform packages and without what only developers need. */
export function stageMain(folder) {
  emptyFolder(folder);
  const { scripts: _scripts, devDependencies: _devDependencies, allowScripts: _allowScripts, napi: _napi, ...manifest } = readManifest(root);
  manifest.optionalDependencies = Object.fromEntries(platformPackages().map((name) => [name, manifest.version]));
  writeManifest(folder, manifest);
  // `files` stays in the manifest, so npm picks from what is copied here.
  const shipped = new Set([...manifest.files.map((pattern) => pattern.split('/')[0]), ...alwaysShipped]);
  for (const name of shipped) {
    if (existsSync(join(root, name))) cpSync(join(root, name), join(folder, name), { recursive: true });
    else if (!alwaysShipped.includes(name)) throw new StepFailed(`${name} is missing; make it with: npm run build`);
  }
  return folder;
}

/** Lays out the package of this machine's platform in `folder`, with the addon as it was built last. */
export function stagePlatform(folder) {
  const addon = addonFile();
  if (!addon) throw new StepFailed('there is no addon to pack; make it with: npm run build');
  const source = join(root, 'npm', addon.replace(/^framewright\.(.+)\.node$/, '$1'));
  if (!existsSync(source)) throw new StepFailed(`${addon} has no package in npm/`);
  emptyFolder(folder);
  cpSync(source, folder, { recursive: true });
  writeManifest(folder, { ...readManifest(source), version: readManifest(root).version });
  cpSync(join(root, 'LICENSE'), join(folder, 'LICENSE'));
  cpSync(join(root, addon), join(folder, addon));
  return folder;
}

/** Packs a staged folder with npm; gives the path of the tarball. */
export function packDirectory(folder, destination) {
  mkdirSync(destination, { recursive: true });
  npm(['pack', folder, '--pack-destination', destination, '--loglevel=error']);
  const { name, version } = readManifest(folder);
  return join(destination, `${name}-${version}.tgz`);
}
