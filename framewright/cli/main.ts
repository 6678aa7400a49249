#!/usr/bin/env node
/** The command `framewright`. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { FramewrightError } from '../index.js';
import { parseArguments, UsageError, type Arguments } from './arguments.js';
import { HELP, PLAN_HELP, RUN_HELP } from './help.js';
import { planJob } from './plan.js';
import { JobFileError, runJob } from './run.js';

/** Exit statuses; 130 is what a shell gives a program that was interrupted. */
const FAILED = 1;
const BAD_INPUT = 2;

// Who reads no further (`| head`) wants no more of it.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') process.exit(0);
  process.stderr.write(`framewright: stdout can't be written: ${error.message}\n`);
  process.exit(FAILED);
});

async function perform(args: Arguments): Promise<number> {
  switch (args.command) {
    case 'run':
      return runJob(args);
    case 'plan':
      process.stdout.write(`${JSON.stringify(planJob(args), null, 2)}\n`);
      return 0;
    case 'help':
      process.stdout.write(`${args.topic === 'run' ? RUN_HELP : args.topic === 'plan' ? PLAN_HELP : HELP}\n`);
      return 0;
    case 'version':
      process.stdout.write(`${version()}\n`);
      return 0;
  }
}

function version(): string {
  const manifest = JSON.parse(readFileSync(join(__dirname, '..', '..', 'package.json'), 'utf8')) as { version: string };
  return manifest.version;
}

/** Says what went wrong on stderr; gives the exit status. */
function report(error: unknown): number {
  const say = (line: string): void => void process.stderr.write(`framewright: ${line}\n`);
  if (error instanceof UsageError) {
    say(error.message);
    process.stderr.write('Try framewright --help.\n');
    return BAD_INPUT;
  }
  if (error instanceof JobFileError) {
    say(error.message);
    return BAD_INPUT;
  }
  if (error instanceof FramewrightError) {
    const issues = error.issues ?? [];
    say(issues.length > 1 ? `${issues.length} problems` : issues.length === 1 ? 'a problem' : error.message);
    for (const { path, message } of issues) process.stderr.write(`  ${path ? `${path}: ` : ''}${message}\n`);
    return error.code === 'VALIDATION' ? BAD_INPUT : FAILED;
  }
  say(error instanceof Error ? error.message : String(error));
  return FAILED;
}

async function main(): Promise<void> {
  try {
    process.exitCode = await perform(parseArguments(process.argv.slice(2)));
  } catch (error) {
    process.exitCode = report(error);
  }
}

void main();
