/**
 * Finds and loads the native engine: a file beside the package root in a checkout, a platform package in an installation.
 * It is loaded once, when this module is; everything else takes it from here.
 */
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import type * as Binding from './binding.js';

/** What the addon exports; `binding.d.ts` is written by the build. */
export type Native = typeof Binding;

interface PackageJson {
  version: string;
  /** The platform packages, put in when the package is packed; missing in a checkout. */
  optionalDependencies?: Record<string, string>;
}

const packageRoot = join(__dirname, '..');
const load = createRequire(__filename);

function linuxLibc(): 'gnu' | 'musl' {
  // A report resolves the names of open sockets unless it is told not to, and that can take seconds.
  const report = process.report as typeof process.report & { excludeNetwork?: boolean };
  const excludeNetwork = report.excludeNetwork;
  report.excludeNetwork = true;
  try {
    const { header } = report.getReport() as { header: { glibcVersionRuntime?: string } };
    return header.glibcVersionRuntime === undefined ? 'musl' : 'gnu';
  } finally {
    if (excludeNetwork !== undefined) report.excludeNetwork = excludeNetwork;
  }
}

/** The platform as the names of the addon's files and packages spell it: `linux-x64-gnu`, `darwin-arm64`, `win32-x64-msvc`. */
export function platformName(platform: string = process.platform, arch: string = process.arch): string {
  if (platform === 'linux') return `linux-${arch}-${linuxLibc()}${arch === 'arm' ? 'eabihf' : ''}`;
  if (platform === 'win32') return `win32-${arch}-msvc`;
  return `${platform}-${arch}`;
}

function isMissing(error: unknown, packageName: string): boolean {
  const { code, message } = error as NodeJS.ErrnoException;
  return code === 'MODULE_NOT_FOUND' && message.includes(`'${packageName}'`);
}

function explain(error: unknown, { version, optionalDependencies }: PackageJson, platform: string): string {
  const packageName = `framewright-${platform}`;
  const prebuilt = Object.keys(optionalDependencies ?? {});
  if (!isMissing(error, packageName)) {
    return `The native engine of framewright ${version} for ${platform} could not be loaded: ${error instanceof Error ? error.message : String(error)}`;
  }
  const missing = `framewright ${version} needs its native engine for ${platform}, and the package ${packageName} is not installed.`;
  if (prebuilt.length > 0 && !prebuilt.includes(packageName)) {
    return `${missing} This version is prebuilt only as: ${prebuilt.join(', ')}.`;
  }
  const inCheckout = existsSync(join(packageRoot, 'Cargo.toml'));
  return inCheckout
    ? `${missing} Build it with: npm run build (or install it with: npm install ${packageName}@${version})`
    : `${missing} Install it with: npm install ${packageName}@${version}`;
}

/**
 * Loads the addon: `framewright.<platform>.node` beside the package root if it is there, else the package `framewright-<platform>`.
 *
 * @throws Error that names the package, the platform and the command to install it, with the loader's error as `cause`;
 *   or that names both versions when the addon is not of this package's version.
 */
export function loadNative(): Native {
  const manifest = load(join(packageRoot, 'package.json')) as PackageJson;
  const platform = platformName();
  const built = join(packageRoot, `framewright.${platform}.node`);
  const source = existsSync(built) ? built : `framewright-${platform}`;

  let native: Native;
  try {
    native = load(source) as Native;
  } catch (error) {
    throw new Error(explain(error, manifest, platform), { cause: error });
  }

  const found = (native as Partial<Native>).version?.() ?? 'unknown';
  if (found !== manifest.version) {
    throw new Error(
      source === built
        ? `framewright ${manifest.version} met a native engine of version ${found} in ${built}. Build it again with: npm run build`
        : `framewright ${manifest.version} met the native engine ${source} of version ${found}. ` +
          `Install the same version of both with: npm install framewright@${manifest.version} ${source}@${manifest.version}`,
    );
  }
  return native;
}

const native: Native = loadNative();
export default native;
