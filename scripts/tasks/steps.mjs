// How a script runs: named steps, each with its duration, the first failure ending it with the failing command's exit code.
// Only what Node has built in, so that it runs before anything is installed.
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..');

/** A step that failed: what to print, and the code to exit with. */
export class StepFailed extends Error {
  constructor(message, exitCode = 1) {
    super(message);
    this.exitCode = exitCode;
  }
}

function seconds(since) {
  return `${((performance.now() - since) / 1000).toFixed(1)} s`;
}

/** Runs one step between a line with its title and a line with its duration. */
export async function step(title, work) {
  const start = performance.now();
  console.log(`\n▸ ${title}`);
  try {
    const result = await work();
    console.log(`✓ ${title}: ${seconds(start)}`);
    return result;
  } catch (error) {
    console.log(`✗ ${title}: ${seconds(start)}`);
    throw error;
  }
}

/** Runs a script's steps and exits with the code of the one that failed. */
export async function main(title, work) {
  const start = performance.now();
  process.chdir(root);
  try {
    await work();
    console.log(`\n${title}: done in ${seconds(start)}`);
  } catch (error) {
    console.error(error instanceof StepFailed ? `\n${title} failed: ${error.message}` : error);
    process.exit(error instanceof StepFailed ? error.exitCode : 1);
  }
}

/** Runs a program in the foreground, from the repository's root unless `cwd` says otherwise. */
export function run(program, args, { cwd = root, env = process.env } = {}) {
  const { status, signal, error } = spawnSync(program, args, { cwd, env, stdio: 'inherit' });
  if (error) throw new StepFailed(`${program} could not be started: ${error.message}`, 127);
  if (signal) throw new StepFailed(`${program} was ended by ${signal}`);
  if (status !== 0) throw new StepFailed(`\`${[program === process.execPath ? 'node' : program, ...args].join(' ')}\` exited with ${status}`, status);
}

/** What a program prints. */
export function output(program, args) {
  const { status, stdout, error } = spawnSync(program, args, { cwd: root, encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] });
  if (error) throw new StepFailed(`${program} could not be started: ${error.message}`, 127);
  if (status !== 0) throw new StepFailed(`\`${[program, ...args].join(' ')}\` exited with ${status}`, status ?? 1);
  return stdout;
}

/** Whether a program can be started and succeeds, without showing what it prints. */
export function succeeds(program, args) {
  return spawnSync(program, args, { cwd: root, stdio: 'ignore' }).status === 0;
}

/** Runs a program of an installed package with this very Node: no shell, no `.cmd`. */
export function tool(packageName, args, { bin = packageName.split('/').pop(), ...options } = {}) {
  const folder = join(root, 'node_modules', packageName);
  const manifest = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'));
  const file = typeof manifest.bin === 'string' ? manifest.bin : manifest.bin[bin];
  run(process.execPath, [join(folder, file), ...args], options);
}

/** Runs npm: the one that runs this script if there is one. */
export function npm(args, options) {
  const cli = process.env.npm_execpath;
  if (cli?.endsWith('.js')) run(process.execPath, [cli, ...args], options);
  else run(process.platform === 'win32' ? 'npm.cmd' : 'npm', args, options);
}
