/** From the words of the command line to what is asked for. */
import { parseArgs, type ParseArgsConfig } from 'node:util';

/** The command line cannot be understood: exit status 2. */
export class UsageError extends Error {
  override name = 'UsageError';
}

export interface RunArguments {
  command: 'run';
  jobFile: string;
  concurrency?: number;
  retries?: number;
  chunk?: number;
  merge: boolean;
  jobDir?: string;
  store?: string;
  json: boolean;
  fresh: boolean;
  allowOutsidePaths: boolean;
}

export interface PlanArguments {
  command: 'plan';
  totalFrames?: number; frames?: string; startFrame?: number;
  chunkSize?: number; chunkCount?: number;
  output: string; chunkCommand: string;
  mergeCommand?: string; outputFile?: string;
  fps: number; width: number; height: number;
}

export type Arguments = RunArguments | PlanArguments | { command: 'help'; topic?: 'run' | 'plan' } | { command: 'version' };

const RUN_OPTIONS = {
  concurrency: { type: 'string' },
  retries: { type: 'string' },
  chunk: { type: 'string' },
  'no-merge': { type: 'boolean' },
  'job-dir': { type: 'string' },
  store: { type: 'string' },
  json: { type: 'boolean' },
  resume: { type: 'boolean' },
  fresh: { type: 'boolean' },
  'allow-outside-paths': { type: 'boolean' },
  help: { type: 'boolean', short: 'h' },
} as const;

const PLAN_OPTIONS = {
  'total-frames': { type: 'string' },
  frames: { type: 'string' },
  'start-frame': { type: 'string' },
  'chunk-size': { type: 'string' },
  'chunk-count': { type: 'string' },
  output: { type: 'string' },
  command: { type: 'string' },
  'merge-command': { type: 'string' },
  'output-file': { type: 'string' },
  fps: { type: 'string' },
  width: { type: 'string' },
  height: { type: 'string' },
  help: { type: 'boolean', short: 'h' },
} as const;

/** Reads the words after `framewright`; throws a UsageError that says what is wrong. */
export function parseArguments(words: string[]): Arguments {
  const [command, ...rest] = words;
  switch (command) {
    case 'run':
      return parseRun(rest);
    case 'plan':
      return parsePlan(rest);
    case '--version':
    case '-v':
      return { command: 'version' };
    case '--help':
    case '-h':
    case 'help':
      return { command: 'help', ...(rest[0] === 'run' || rest[0] === 'plan' ? { topic: rest[0] } : {}) };
    case undefined:
      throw new UsageError('a command is missing: run or plan');
    default:
      throw new UsageError(`unknown ${command.startsWith('-') ? 'option' : 'command'} ${command}`);
  }
}

function parseRun(words: string[]): Arguments {
  const { values, positionals } = read({ args: words, options: RUN_OPTIONS, allowPositionals: true });
  if (values.help) return { command: 'help', topic: 'run' };
  const [jobFile, another] = positionals;
  if (jobFile === undefined) throw new UsageError('run: the job file is missing');
  if (another !== undefined) throw new UsageError(`run: one job file at a time, not also ${another}`);
  if (values.resume && values.fresh) throw new UsageError('run: --resume and --fresh exclude each other');
  const concurrency = integer(values.concurrency, '--concurrency', 1);
  const retries = integer(values.retries, '--retries', 0);
  const chunk = integer(values.chunk, '--chunk', 0);
  return {
    command: 'run',
    jobFile,
    ...(concurrency !== undefined ? { concurrency } : {}),
    ...(retries !== undefined ? { retries } : {}),
    ...(chunk !== undefined ? { chunk } : {}),
    ...(values['job-dir'] !== undefined ? { jobDir: text(values['job-dir'], '--job-dir') } : {}),
    ...(values.store !== undefined ? { store: text(values.store, '--store') } : {}),
    merge: !values['no-merge'] && chunk === undefined,
    json: values.json === true,
    fresh: values.fresh === true,
    allowOutsidePaths: values['allow-outside-paths'] === true,
  };
}

function parsePlan(words: string[]): Arguments {
  const { values } = read({ args: words, options: PLAN_OPTIONS, allowPositionals: false });
  if (values.help) return { command: 'help', topic: 'plan' };
  oneOf(values['total-frames'], '--total-frames', values.frames, '--frames');
  oneOf(values['chunk-size'], '--chunk-size', values['chunk-count'], '--chunk-count');
  if (values.frames !== undefined && values['start-frame'] !== undefined) throw new UsageError('plan: --start-frame goes with --total-frames; --frames names its own');
  const totalFrames = integer(values['total-frames'], '--total-frames', 1);
  const startFrame = integer(values['start-frame'], '--start-frame', 0);
  const chunkSize = integer(values['chunk-size'], '--chunk-size', 1);
  const chunkCount = integer(values['chunk-count'], '--chunk-count', 1);
  return {
    command: 'plan',
    ...(totalFrames !== undefined ? { totalFrames } : {}),
    ...(values.frames !== undefined ? { frames: values.frames } : {}),
    ...(startFrame !== undefined ? { startFrame } : {}),
    ...(chunkSize !== undefined ? { chunkSize } : {}),
    ...(chunkCount !== undefined ? { chunkCount } : {}),
    output: text(values.output, '--output'),
    chunkCommand: text(values.command, '--command'),
    ...(values['merge-command'] !== undefined ? { mergeCommand: text(values['merge-command'], '--merge-command') } : {}),
    ...(values['output-file'] !== undefined ? { outputFile: text(values['output-file'], '--output-file') } : {}),
    fps: positive(values.fps, '--fps') ?? 30,
    width: integer(values.width, '--width', 1) ?? 1920,
    height: integer(values.height, '--height', 1) ?? 1080,
  };
}

function read<T extends ParseArgsConfig>(config: T): ReturnType<typeof parseArgs<T>> {
  try {
    return parseArgs(config);
  } catch (error) {
    throw new UsageError((error as Error).message.split('. To specify')[0]);
  }
}

function oneOf(first: string | undefined, firstName: string, second: string | undefined, secondName: string): void {
  if (first === undefined && second === undefined) throw new UsageError(`plan: ${firstName} or ${secondName} is missing`);
  if (first !== undefined && second !== undefined) throw new UsageError(`plan: ${firstName} and ${secondName} exclude each other`);
}

function text(value: string | undefined, name: string): string {
  if (value === undefined) throw new UsageError(`${name} is missing`);
  if (value.trim() === '') throw new UsageError(`${name} is empty`);
  return value;
}

function integer(value: string | undefined, name: string, least: number): number | undefined {
  if (value === undefined) return undefined;
  const number = Number(value);
  if (!/^\d+$/.test(value) || !Number.isSafeInteger(number) || number < least) throw new UsageError(`${name} takes a whole number from ${least} on, not "${value}"`);
  return number;
}

function positive(value: string | undefined, name: string): number | undefined {
  if (value === undefined) return undefined;
  const number = Number(value);
  if (!/^\d+(\.\d+)?$/.test(value) || !(number > 0)) throw new UsageError(`${name} takes a number above 0, not "${value}"`);
  return number;
}
