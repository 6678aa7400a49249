import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, parse } from 'node:path';
import fc from 'fast-check';
import {
  InMemoryJobRepository,
  JobExecutor,
  LocalWorkerAdapter,
  type ChunkInput,
  type JobExecutionOptions,
  type JobSpecInput,
  type WorkerAdapter,
  type WorkerJob,
  type WorkerResult,
} from 'framewright';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { open } from './support/managers.js';
import { chunkResult } from './support/own-executor.js';
import { rejection } from './support/rejection.js';

/** Keeps what it is asked to run, by chunk. */
class Recorder implements WorkerAdapter {
  readonly jobs: WorkerJob[] = [];
  constructor(readonly answer: (job: WorkerJob) => WorkerResult = () => chunkResult) {}
  async execute(job: WorkerJob): Promise<WorkerResult> {
    this.jobs.push(job);
    return this.answer(job);
  }
  /** Program and arguments of every call. */
  get words(): string[][] {
    return this.jobs.map((job) => [job.command, ...(job.args ?? [])]);
  }
}

/** How a job ends, and what its chunks printed. */
async function run(adapter: WorkerAdapter, spec: JobSpecInput, options: JobExecutionOptions = {}, id = 'the-job'): Promise<Map<number, string>> {
  const manager = open(new InMemoryJobRepository(), new JobExecutor(adapter));
  const printed = new Map<number, string>();
  await manager.submitJob(spec, { concurrency: 4, ...options, id, onChunkComplete: (chunk, { stdout }) => void printed.set(chunk, stdout) });
  const job = await manager.waitForJob(id);
  expect(job.error).toBeUndefined();
  expect(job.state).toBe('completed');
  return printed;
}

/** A process writes its output under a temporary name beside the final one; here it has the final one again. */
function settled(word: string, outputFile: string | undefined): string {
  if (outputFile === undefined) return word;
  const { dir, name, ext } = parse(outputFile);
  const literal = (text: string): string => text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');
  const folder = dir === '' ? '' : `${dir}/`;
  return word.replace(new RegExp(`${literal(folder)}\\.${literal(name)}\\.\\d+-[0-9a-f]{8}\\.partial${literal(ext)}`, 'gu'), () => outputFile);
}

/** The words that a chunk's process printed. */
const printedBy = (chunk: ChunkInput, text = ''): string[] => text.split('\0').slice(0, -1).map((word) => settled(word, chunk.outputFile)); // prettier-ignore

/** Words as a JavaScript adapter gets them, and as a real process does. */
async function bothOf(chunks: ChunkInput[], options: JobExecutionOptions = {}): Promise<{ adapter: string[][]; processes: string[][] }> {
  const recorder = new Recorder();
  await run(recorder, { chunks }, { ...options, concurrency: 1 });
  const printed = await run(new LocalWorkerAdapter({ keepOutputBytes: 1_000_000 }), { chunks }, options);
  return { adapter: recorder.words.map((words) => words.slice(PRINTER.length)), processes: chunks.map((chunk) => printedBy(chunk, printed.get(chunk.id))) };
}

/** Prints its arguments, each with a NUL behind it. */
const PRINTER = ['sh', '-c', 'for word; do printf "%s\\0" "$word"; done', 'sh'];
const PRINTER_LINE = `sh -c 'for word; do printf "%s\\0" "$word"; done' sh`;

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'framewright-command-'));
});
afterEach(() => rm(folder, { recursive: true, force: true }));

describe('splitting a command', () => {
  const table: [string, string[]][] = [
    ['a b', ['a', 'b']],
    [' a\t\tb \n c ', ['a', 'b', 'c']],
    [`'a b' "c d"`, ['a b', 'c d']],
    [`'a\\b' "a\\b"`, ['a\\b', 'a\\b']],
    [`"a\\"b" "a\\\\b" "\\$x" "\\\`x"`, ['a"b', 'a\\b', '$x', '`x']],
    [`a\\ b \\'c\\' \\\\`, ['a b', `'c'`, '\\']],
    [`'' "" a''b ""c`, ['', '', 'ab', 'c']],
    [`'it'\\''s'`, [`it's`]],
    [`a"b c"'d e'f`, ['ab cd ef']],
    ['a\\\nb "c\\\nd" \'e\\\nf\'', ['ab', 'cd', 'e\\\nf']],
    ['# a#b ; | & > < * ? ~ $HOME `ls` $(ls) !', ['#', 'a#b', ';', '|', '&', '>', '<', '*', '?', '~', '$HOME', '`ls`', '$(ls)', '!']],
    ['"a\nb" \'c\td\'', ['a\nb', 'c\td']],
    ['é 🎥 "ž ñ"', ['é', '🎥', 'ž ñ']],
    ['{a,b} [x] (y)', ['{a,b}', '[x]', '(y)']],
    ['C:\\\\x "C:\\x"', ['C:\\x', 'C:\\x']],
  ];

  it.each(table)('[F5] %j has the words of a POSIX shell, for an adapter and for a process', async (line, words) => {
    expect(await bothOf([{ id: 0, command: `${PRINTER_LINE} ${line}` }])).toEqual({ adapter: [words], processes: [words] });
  });

  it.each<[string, string[]]>([
    ['a b', ['a', 'b']],
    ['a\\ b c\\\\d \\e', ['a b', 'c\\d', 'e']],
    ['  a\t\nb\\\nc  ', ['a', 'bc']],
    ['a\u00a0b \u2003 c\rd', ['a\u00a0b', '\u2003', 'c\rd']],
  ])('[F5] %j, without any quotes, has the words of a POSIX shell as well', async (line, words) => {
    const recorder = new Recorder();
    const chunks = [{ id: 0, command: `printf %s\\\\0 ${line}` }];
    await run(recorder, { chunks });
    expect(recorder.words).toEqual([['printf', '%s\\0', ...words]]);
    const printed = await run(new LocalWorkerAdapter(), { chunks });
    expect(printedBy(chunks[0]!, printed.get(0))).toEqual(words);
    await run(recorder, { chunks: [{ id: 0, command: `tool ${line}` }] });
    expect(recorder.words[1]).toEqual(['tool', ...words]);
  });

  it('[F5] the program itself may be quoted', async () => {
    const recorder = new Recorder();
    await run(recorder, { chunks: [{ id: 0, command: `"/opt/my tool"'s/bin' x` }] });
    expect(recorder.words).toEqual([['/opt/my tools/bin', 'x']]);
  });

  it('[F5] argv is taken word by word, without any quoting, and wins over the command', async () => {
    const words = ['a b', `'c'`, '"', '\\', '', '$HOME', '\n', '#'];
    const chunks = [{ id: 0, command: 'never this', argv: [...PRINTER, ...words] }];
    expect(await bothOf(chunks)).toEqual({ adapter: [words], processes: [words] });
  });

  it.each([
    [`echo "hi`, 5],
    [`echo 'hi`, 5],
    [`é 🎥 "hi`, 4],
    [`echo "a" 'b" c`, 9],
    ['echo hi\\', 7],
    [`"`, 0],
  ])('[F5] %j is refused with the position of what is not closed', async (command, position) => {
    const repository = new InMemoryJobRepository();
    const manager = open(repository, new JobExecutor(new Recorder()));
    const specs: [JobSpecInput, string][] = [
      [{ chunks: [{ id: 0, command: 'fine' }, { id: 1, command }] }, 'chunks[1].command'],
      [{ chunks: [], mergeCommand: command }, 'mergeCommand'],
    ]; // prettier-ignore
    for (const [spec, path] of specs) {
      const error = await rejection(manager.submitJob(spec));
      expect(error.code).toBe('VALIDATION');
      expect(error.issues).toHaveLength(1);
      expect(error.issues![0]!.path).toBe(path);
      expect(error.issues![0]!.message).toMatch(new RegExp(`position ${position}\\b`));
    }
    expect(await repository.list()).toEqual([]);
  });

  it('[F5] a line whose only word is empty names no program', async () => {
    const manager = open(new InMemoryJobRepository(), new JobExecutor(new Recorder()));
    for (const command of [`''`, `"" x`, `'' ''`]) {
      const error = await rejection(manager.submitJob({ chunks: [{ id: 0, command }] }));
      expect(error.issues!.map((issue) => issue.path)).toEqual(['chunks[0].command']);
    }
  });
});

describe('placeholders', () => {
  const chunk = { id: 7, startFrame: 150, frameCount: 26, frameStep: 2, outputFile: 'out {attempt}/a "b\'.mp4' };
  const line = '{chunkId} {startFrame} {endFrame} {frameCount} {frameStep} {outputFile} {jobId} {attempt} {chunkId:04}/{startFrame:2}-{endFrame:06} x{frameCount:3}y {unknown} {chunkid} { chunkId } {chunkId:} {chunkId:x} {outputFile:04} {{chunkId}} {chunkId';
  const words = ['7', '150', '200', '26', '2', chunk.outputFile, 'the-job', '1', '0007/150-000200', 'x026y', '{unknown}', '{chunkid}', '{', 'chunkId', '}', '{chunkId:}', '{chunkId:x}', '{outputFile:04}', '{7}', '{chunkId']; // prettier-ignore

  it('[F58] the values of a chunk are put into its words, for an adapter and for a process, and an unknown name stays', async () => {
    expect(await bothOf([{ ...chunk, command: `${PRINTER_LINE} ${line}` }], { jobDir: folder })).toEqual({ adapter: [words], processes: [words] });
  });

  it('[F58] they are put into argv as well, the program included', async () => {
    const recorder = new Recorder();
    await run(recorder, { chunks: [{ ...chunk, argv: ['/bin/tool-{chunkId:02}', '-f', '{startFrame}..{endFrame}', '{ chunkId }'] }] });
    expect(recorder.words).toEqual([['/bin/tool-07', '-f', '150..200', '{ chunkId }']]);
  });

  it('[F58] a value never changes how the line was split, and is never looked at again', async () => {
    const outputFile = `a '{chunkId}' "{jobId}" \\ $HOME {attempt}`;
    const chunks = [{ id: 3, outputFile, command: `${PRINTER_LINE} {outputFile} '{outputFile}' "-o{outputFile}"` }];
    const expected = [[outputFile, outputFile, `-o${outputFile}`]];
    expect(await bothOf(chunks, { jobDir: folder })).toEqual({ adapter: expected, processes: expected });
  });

  it('[F58] what a chunk does not say stays as it is', async () => {
    const chunks = [{ id: 3, command: `${PRINTER_LINE} {startFrame} {endFrame} {frameCount} {frameStep} {outputFile} {chunkId}` }];
    const expected = [['{startFrame}', '{endFrame}', '{frameCount}', '1', '{outputFile}', '3']];
    expect(await bothOf(chunks)).toEqual({ adapter: expected, processes: expected });
  });

  it.each(['{chunkId:0}', '{chunkId:00}', '{chunkId:1}', '{chunkId:32}', '{chunkId:33}', '{chunkId:0000000004}', '{chunkId:00000000000004}', '{chunkId:99999999999999999999}', '{chunkId:-4}', '{chunkId: 4}', '{chunkId:+4}', '{chunkId:٤}', '{jobId:4}', '{attempt:03}', '{ chunkId}', '{CHUNKID}', '{}', '{:4}', '{{{chunkId:02}}}', '{chunkId:04'])(
    '[F58] %s means the same to an adapter and to a process',
    async (template) => {
      const { adapter, processes } = await bothOf([{ id: 7, argv: [...PRINTER, template] }]);
      expect(processes).toEqual(adapter);
    },
  ); // prettier-ignore

  it('[F58] frames that are too high to be added up exactly are refused, or mean the same to both', async () => {
    const most = Number.MAX_SAFE_INTEGER;
    for (const [startFrame, frameCount, frameStep] of [[most, 2, 1], [most, most, most], [0, most, 2], [most - 1, 2, 1]] as const) {
      const chunks = [{ id: 0, startFrame, frameCount, frameStep, argv: [...PRINTER, '{endFrame}'] }];
      const manager = open(new InMemoryJobRepository(), new JobExecutor(new Recorder()));
      const code = await manager.submitJob({ chunks }).then(() => undefined, (error: unknown) => (error as { code: string }).code); // prettier-ignore
      if (code === undefined) {
        const { adapter, processes } = await bothOf(chunks);
        expect(processes).toEqual(adapter);
        expect(adapter[0]![0]).toBe(String(BigInt(startFrame) + BigInt(frameCount - 1) * BigInt(frameStep)));
      } else expect(code).toBe('VALIDATION');
    }
  });

  it('[F58] {attempt} is the number of the attempt, in words, variables and meta', async () => {
    const recorder = new Recorder((job) => ({ ...chunkResult, exitCode: job.meta!['attempt'] === 3 ? 0 : 1 }));
    await run(recorder, { chunks: [{ id: 0, command: 'r {attempt:02}' }] }, { retries: 3, retryDelay: 0 });
    expect(recorder.words).toEqual([['r', '01'], ['r', '02'], ['r', '03']]); // prettier-ignore
    expect(recorder.jobs.map((job) => [job.env!['FRAMEWRIGHT_ATTEMPT'], job.meta!['attempt'] as unknown])).toEqual([['1', 1], ['2', 2], ['3', 3]]); // prettier-ignore
    const printed = await run(
      new LocalWorkerAdapter(),
      { chunks: [{ id: 0, command: `sh -c 'printf %s "$1$FRAMEWRIGHT_ATTEMPT"; test "$1" = 03' sh {attempt:02}` }] },
      { retries: 3, retryDelay: 0 },
    );
    expect(printed.get(0)).toBe('033');
  });

  it('[F58] {jobId} is the id of the record, not that of the spec', async () => {
    const recorder = new Recorder();
    await run(recorder, { id: 'render', chunks: [{ id: 0, command: 'r {jobId}' }], mergeCommand: 'join {jobId}' }, {}, 'record-1');
    expect(recorder.words).toEqual([['r', 'record-1'], ['join', 'record-1']]); // prettier-ignore
  });

  it('[F58] the merge command has {jobId} and {outputFile} put in after it was split, with an adapter and as a process', async () => {
    const outputFile = `final 'x'.txt`;
    const mergeAdapter = new Recorder();
    await run(new Recorder(), { chunks: [], mergeCommand: 'join -o {outputFile} "{jobId}.log" {chunkId}' }, { mergeAdapter, outputFile, jobDir: folder });
    expect(mergeAdapter.words).toEqual([['join', '-o', outputFile, 'the-job.log', '{chunkId}']]);
    const manager = open(new InMemoryJobRepository(), new JobExecutor(new LocalWorkerAdapter()));
    await manager.submitJob({ chunks: [], mergeCommand: `sh -c 'printf %s "$2" > "$1"' sh {outputFile} {jobId}` }, { id: 'the-job', outputFile, jobDir: folder });
    expect((await manager.waitForJob('the-job')).result).toEqual({ path: join(folder, outputFile), bytes: 'the-job'.length });
  });
});

describe('what a program is told beside its words', () => {
  const chunk = { id: 7, startFrame: 150, frameCount: 26, frameStep: 2, outputFile: 'a b.mp4' };
  const expected = {
    FRAMEWRIGHT_JOB_ID: 'the-job', FRAMEWRIGHT_CHUNK_ID: '7', FRAMEWRIGHT_ATTEMPT: '1', FRAMEWRIGHT_START_FRAME: '150', FRAMEWRIGHT_END_FRAME: '200',
    FRAMEWRIGHT_FRAME_COUNT: '26', FRAMEWRIGHT_FRAME_STEP: '2', FRAMEWRIGHT_OUTPUT_FILE: 'a b.mp4',
  }; // prettier-ignore
  const environment = (text: string): Record<string, string> => Object.fromEntries(text.trimEnd().split('\0').filter(Boolean).map((entry) => [entry.slice(0, entry.indexOf('=')), entry.slice(entry.indexOf('=') + 1)])); // prettier-ignore
  const ours = (env: Record<string, string> | undefined): Record<string, string> => Object.fromEntries(Object.entries(env ?? {}).filter(([name]) => /^(FRAMEWRIGHT|MINE)_/.test(name)));

  afterEach(() => vi.unstubAllEnvs());

  it('[F58] FRAMEWRIGHT_* variables carry the values, beside those of the user, to an adapter and to a process alike', async () => {
    const env = { MINE_A: '1 "x" {chunkId}', MINE_EMPTY: '' };
    const recorder = new Recorder();
    await run(recorder, { chunks: [{ ...chunk, command: 'x' }] }, { env });
    const told = ours(recorder.jobs[0]!.env);
    expect(told).toMatchObject({ ...expected, MINE_EMPTY: '' });
    const printed = await run(new LocalWorkerAdapter(), { chunks: [{ ...chunk, command: 'env -0' }] }, { env, jobDir: folder });
    expect(ours(environment(printed.get(7)!))).toEqual(told);
  });

  it('[F58] what a chunk does not say is not set, whatever this process has of that name', async () => {
    vi.stubEnv('FRAMEWRIGHT_START_FRAME', 'stale');
    const recorder = new Recorder();
    await run(recorder, { chunks: [{ id: 1, command: 'x' }] });
    const told = { FRAMEWRIGHT_JOB_ID: 'the-job', FRAMEWRIGHT_CHUNK_ID: '1', FRAMEWRIGHT_ATTEMPT: '1', FRAMEWRIGHT_FRAME_STEP: '1' };
    expect(ours(recorder.jobs[0]!.env)).toEqual(told);
    vi.unstubAllEnvs();
    const printed = await run(new LocalWorkerAdapter(), { chunks: [{ id: 1, command: 'env -0' }] });
    expect(ours(environment(printed.get(1)!))).toEqual(told);
  });

  it("[F58] ours win over variables of the user's that have the same names", async () => {
    const env = { FRAMEWRIGHT_CHUNK_ID: 'wrong', FRAMEWRIGHT_JOB_ID: 'wrong' };
    const recorder = new Recorder();
    await run(recorder, { chunks: [{ id: 1, command: 'x' }] }, { env });
    expect(recorder.jobs[0]!.env).toMatchObject({ FRAMEWRIGHT_CHUNK_ID: '1', FRAMEWRIGHT_JOB_ID: 'the-job' });
    const printed = await run(new LocalWorkerAdapter(), { chunks: [{ id: 1, command: 'env -0' }] }, { env });
    expect(environment(printed.get(1)!)).toMatchObject({ FRAMEWRIGHT_CHUNK_ID: '1', FRAMEWRIGHT_JOB_ID: 'the-job' });
  });

  it("[F58] meta has the chunk, the job, the attempt and the user's own meta", async () => {
    const recorder = new Recorder();
    await run(recorder, { chunks: [{ ...chunk, command: 'x {chunkId}', gpu: 'any' }] }, { meta: { owner: { name: 'me' }, jobDefUrl: 's3://job' } });
    expect(recorder.jobs[0]!.meta).toMatchObject({ ...chunk, chunkId: 7, command: 'x {chunkId}', gpu: 'any', jobId: 'the-job', attempt: 1, owner: { name: 'me' }, jobDefUrl: 's3://job' });
  });

  it('[F58] a planned job tells its adapter and its processes the same', async () => {
    const plan = { totalFrames: 25, startFrame: 100, chunkSize: 10, outputFile: 'part-{chunkId:03}.txt', command: `${PRINTER_LINE} {chunkId} {startFrame:05} {endFrame} {frameCount} {outputFile} {jobId}` };
    const recorder = new Recorder();
    await run(recorder, { plan }, { concurrency: 1 });
    const expectedWords = [['0', '00100', '109', '10', 'part-000.txt', 'the-job'], ['1', '00110', '119', '10', 'part-001.txt', 'the-job'], ['2', '00120', '124', '5', 'part-002.txt', 'the-job']]; // prettier-ignore
    expect(recorder.words.map((words) => words.slice(PRINTER.length))).toEqual(expectedWords);
    expect(recorder.jobs.map((job) => job.meta!['outputFile'] as unknown)).toEqual(['part-000.txt', 'part-001.txt', 'part-002.txt']);
    const printed = await run(new LocalWorkerAdapter(), { plan }, { jobDir: folder });
    expect([0, 1, 2].map((id) => printedBy({ id, outputFile: `part-00${id}.txt` }, printed.get(id)))).toEqual(expectedWords);
  });
});

describe('commands of every kind', () => {
  type Piece = { source: string; value: string };

  const text = fc.oneof(
    fc.string({ unit: 'binary', maxLength: 8 }),
    fc.string({ unit: fc.constantFrom('a', ' ', "'", '"', '\\', '$', '`', '\n', '\t', '\r', '#', '{', '}', ':', '0', 'é', '🎥', '=', '-', '*', '~', '\u00a0'), maxLength: 12 }),
    fc.constantFrom('{chunkId}', '{chunkId:05}', '{startFrame}-{endFrame:4}', '{frameCount}{frameStep}', '{outputFile}', '{jobId}', '{attempt:2}', '{{chunkId}}', '{nothing}', '{chunkId:x}', '{startFrame'),
  ).map((value) => value.replaceAll('\0', '').replaceAll('\ufeff', '')); // prettier-ignore

  const single = text.map((value): Piece => ({ source: `'${value.replaceAll("'", `'\\''`)}'`, value }));
  const double = text.map((value): Piece => ({ source: `"${value.replace(/[$`"\\]/g, '\\$&')}"`, value }));
  const escaped = text.map((value): Piece => ({ source: Array.from(value).map((c) => (c === '\n' ? `'\n'` : `\\${c}`)).join('') || `''`, value }));
  const bare = text.map((value): Piece => ({ source: value.replace(/[\s'"\\]/g, '') || 'x', value: value.replace(/[\s'"\\]/g, '') || 'x' }));
  const oddity = fc.constantFrom<Piece[]>(
    ...[
      { source: '"a\\nb"', value: 'a\\nb' }, { source: "'a\\b'", value: 'a\\b' }, { source: 'a\\\nb', value: 'ab' }, { source: '"a\\\nb"', value: 'ab' },
      { source: '#a', value: '#a' }, { source: '""', value: '' }, { source: '"\\\'"', value: "\\'" }, { source: '{chunk"Id}"', value: '{chunkId}' }, { source: "'{'chunkId}", value: '{chunkId}' },
    ].map((piece) => [piece]),
  ).map(([piece]) => piece!); // prettier-ignore
  const word = fc.array(fc.oneof(single, double, escaped, bare, oddity), { minLength: 1, maxLength: 4 }).map((pieces) => ({ source: pieces.map((piece) => piece.source).join(''), value: pieces.map((piece) => piece.value).join('') })); // prettier-ignore
  const gap = fc.constantFrom(' ', '\t', '\n', '  ', ' \\\n ');
  const line = fc.array(fc.tuple(gap, word), { minLength: 1, maxLength: 12 });
  const chunkOf = fc.record(
    { startFrame: fc.nat(100_000), frameCount: fc.integer({ min: 1, max: 5000 }), frameStep: fc.integer({ min: 1, max: 9 }), outputFile: fc.constantFrom(`a b`, `{attempt}`, `q'"\\`, 'd/é') },
    { requiredKeys: [] },
  ); // prettier-ignore

  /** The rules of the declarations, written down once more. */
  function model(value: string, chunk: Record<string, unknown>): string {
    const { startFrame, frameCount } = chunk as { startFrame?: number; frameCount?: number };
    const step = (chunk['frameStep'] as number | undefined) ?? 1;
    const values: Record<string, string | number | undefined> = {
      chunkId: chunk['id'] as number, startFrame, frameCount, frameStep: step, outputFile: chunk['outputFile'] as string | undefined, jobId: 'the-job', attempt: 1,
      endFrame: startFrame === undefined || frameCount === undefined ? undefined : startFrame + (frameCount - 1) * step,
    }; // prettier-ignore
    return value.replace(/\{([a-zA-Z]+)(?::0*([1-9]\d?))?\}/g, (whole, name: string, width?: string) => {
      const found = Object.hasOwn(values, name) ? values[name] : undefined;
      if (found === undefined || (width !== undefined && (typeof found === 'string' || Number(width) > 32))) return whole;
      return width === undefined ? String(found) : String(found).padStart(Number(width), '0');
    });
  }

  it('[F5] [F58] an adapter and a process get the same words, those that the rules give', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(fc.tuple(line, chunkOf, fc.boolean()), { minLength: 60, maxLength: 60 }), async (drawn) => {
        const chunks: ChunkInput[] = [];
        const expected: string[][] = [];
        for (const [id, [words, fields, asArgv]] of drawn.entries()) {
          const chunk = { id, ...fields, ...(fields.outputFile === undefined ? {} : { outputFile: `${fields.outputFile}-${id}` }) };
          expected.push(words.map(([, { value }]) => model(value, chunk)));
          const source = words.map(([space, { source: quoted }]) => space + quoted).join('');
          chunks.push(asArgv ? { ...chunk, argv: [...PRINTER, ...words.map(([, { value }]) => value)] } : { ...chunk, command: PRINTER_LINE + source });
        }
        const { adapter, processes } = await bothOf(chunks, { jobDir: folder });
        expect(adapter).toEqual(expected);
        expect(processes).toEqual(expected);
      }),
      { numRuns: 8, endOnFailure: true },
    );
  });
});
