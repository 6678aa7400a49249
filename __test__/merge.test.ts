import ffmpegInstaller from '@ffmpeg-installer/ffmpeg';
import { ConcatStitcher, FfmpegStitcher, InMemoryJobRepository, JobExecutor, LocalWorkerAdapter, type JobExecutionOptions, type VideoStitcher, type WorkerAdapter, type WorkerJob } from 'framewright';
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, statSync, truncateSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { deferred } from './support/deferred.js';
import { Folder } from './support/folder.js';
import { open } from './support/managers.js';
import { chunkResult, whenAborted } from './support/own-executor.js';
import { isAlive } from './support/processes.js';
import { rejection } from './support/rejection.js';
import { adapters, local, shellJob } from './support/shell.js';
import { nextEvent, traceOf, typesOf } from './support/trace.js';
import { turn, until } from './support/turns.js';

const manage = (executor: JobExecutor = local()) => open(new InMemoryJobRepository(), executor);

/** Writes what it was asked to merge into the output. */
class ListStitcher implements VideoStitcher {
  readonly calls: { inputs: string[]; output: string; signal: AbortSignal | undefined }[] = [];
  readonly #local = new LocalWorkerAdapter();

  async stitch(inputs: string[], output: string, options: { signal?: AbortSignal } = {}): Promise<void> {
    this.calls.push({ inputs, output, signal: options.signal });
    await this.#local.execute({ command: '/bin/sh', args: ['-c', 'printf "%s\\n" "$@" > "$0"', output, ...inputs] });
  }
}

/** Chunks whose order in the list is neither that of their ids nor that of their frames. */
const shuffled = (script: string) => ({
  chunks: [[2, 30], [0, 20], [3, 0], [1, 10]].map(([id, startFrame]) => ({ id: id!, startFrame: startFrame!, frameCount: 10, outputFile: `part-${startFrame}.txt`, argv: ['/bin/sh', '-c', script, 'sh', '{outputFile}', '{startFrame}'] })),
});
const inOrder = (folder: Folder) => [0, 10, 20, 30].map((frame) => folder.file(`part-${frame}.txt`));

describe.each(adapters)('the merge of chunks $kind', ({ adapter }) => {
  it('[F91] happens once, after all chunks, with the inputs ordered by their first frame', async () => {
    const folder = new Folder();
    const manager = manage(new JobExecutor(adapter()));
    const events = traceOf(manager);
    const stitcher = new ListStitcher();
    const present: boolean[] = [];
    const seeing: VideoStitcher = { stitch: (inputs, output, options) => (present.push(...inputs.map((input) => existsSync(input))), stitcher.stitch(inputs, output, options)) };
    const id = await manager.submitJob(shuffled('sleep 0.0$(($2 % 3)); echo $2 > "$1"'), { jobDir: folder.path, concurrency: 3, stitcher: seeing, outputFile: 'out/film.txt', retries: 2 });
    mkdirSync(folder.file('out'));
    const status = await manager.waitForJob(id);
    expect(status.state).toBe('completed');
    expect(stitcher.calls.map(({ inputs, output }) => [inputs, output])).toEqual([[inOrder(folder), folder.file('out/film.txt')]]);
    expect(present).toEqual([true, true, true, true]);
    const types = typesOf(events, id);
    expect(types.filter((type) => type === 'merge.started' || type === 'merge.completed')).toEqual(['merge.started', 'merge.completed']);
    expect(types.lastIndexOf('chunk.completed')).toBeLessThan(types.indexOf('merge.started'));
    expect(types.indexOf('merge.completed')).toBeLessThan(types.indexOf('job.completed'));
  });

  it.each<[string, JobExecutionOptions]>([['merge: false', { merge: false }], ['skipMerge: true', { skipMerge: true }]])('[F91] is left out with %s', async (_, options) => {
    const folder = new Folder();
    const stitcher = new ListStitcher();
    const manager = manage(new JobExecutor(adapter()));
    const id = await manager.submitJob(shellJob(2, 'true', [], { mergeCommand: "/bin/sh -c ': > merged'" }), { jobDir: folder.path, stitcher, outputFile: 'all.txt', ...options });
    expect(await manager.waitForJob(id)).toMatchObject({ state: 'completed', progress: 100 });
    expect(stitcher.calls).toEqual([]);
    expect(folder.names()).toEqual([]);
  });

  it('[F91] is left out when a chunk failed, and when there is nothing that merges', async () => {
    const folder = new Folder();
    const manager = manage(new JobExecutor(adapter()));
    const events = traceOf(manager);
    const failing = await manager.submitJob(shellJob(2, 'exit $1', [], { mergeCommand: "/bin/sh -c ': > merged'" }), { jobDir: folder.path });
    expect((await manager.waitForJob(failing)).state).toBe('failed');
    const plain = await manager.submitJob(shellJob(1, 'true', [], { mergeCommand: '' }), { jobDir: folder.path, stitcher: new ListStitcher() });
    expect((await manager.waitForJob(plain)).state).toBe('completed');
    expect(folder.names()).toEqual([]);
    expect(events.some((event) => event.type === 'merge.started')).toBe(false);
  });

  it('[F91] runs mergeCommand in the job\'s folder, without a shell, with its placeholders', async () => {
    const folder = new Folder();
    const manager = manage(new JobExecutor(adapter()));
    const spec = shellJob(1, 'true', [], { mergeCommand: `/bin/sh -c 'pwd -P > where; printf "%s\\n" "$@" > words' sh {jobId} "{outputFile}" '$HOME *'` });
    const id = await manager.submitJob(spec, { jobDir: folder.path, outputFile: 'my film.mp4' });
    expect((await manager.waitForJob(id)).state).toBe('completed');
    expect(folder.read('where')).toBe(`${folder.path}\n`);
    const name = expect.stringMatching(adapter() instanceof LocalWorkerAdapter ? /^\.my film\.[0-9a-f]{8}\.partial\.mp4$/ : /^my film\.mp4$/) as string;
    expect(folder.lines('words')).toEqual([id, name, '$HOME *']);
  });

  it('[F94] tells path and size of the output in the result', async () => {
    const folder = new Folder();
    const manager = manage(new JobExecutor(adapter()));
    const spec = shuffled('echo $2 > "$1"');
    const stitched = await manager.submitJob(spec, { jobDir: folder.path, stitcher: new ConcatStitcher(), outputFile: 'all.txt' });
    expect((await manager.waitForJob(stitched)).result).toEqual({ path: folder.file('all.txt'), bytes: 11 });
    const commanded = await manager.submitJob({ ...spec, mergeCommand: "/bin/sh -c 'printf 12345 > $0' {outputFile}" }, { jobDir: folder.path, outputFile: 'made.txt' });
    expect((await manager.waitForJob(commanded)).result).toEqual({ path: folder.file('made.txt'), bytes: 5 });
  });

  it('[F97] cleanupChunks removes the chunk files after a merge that was verified', async () => {
    const folder = new Folder();
    const options = { jobDir: folder.path, stitcher: new ConcatStitcher(), outputFile: 'all.txt' };
    await new JobExecutor(adapter()).execute(shuffled('echo $2 > "$1"'), options);
    expect(folder.names()).toHaveLength(5);
    await new JobExecutor(adapter()).execute(shuffled('echo $2 > "$1"'), { ...options, cleanupChunks: true });
    expect(folder.names()).toEqual(['all.txt']);
    expect(folder.lines('all.txt')).toEqual(['0', '10', '20', '30']);
  });

  it.each<[string, Partial<JobExecutionOptions>, string]>([
    ['the stitcher failed', { stitcher: { stitch: () => Promise.reject(new Error('no codec')) } }, 'failed'],
    ['the stitcher wrote nothing', { stitcher: { stitch: () => Promise.resolve() } }, 'failed'],
    ['the merge was left out', { stitcher: new ConcatStitcher(), merge: false }, 'completed'],
  ])('[F97] cleanupChunks removes nothing when %s', async (_, options, state) => {
    const folder = new Folder();
    const manager = manage(new JobExecutor(adapter()));
    const id = await manager.submitJob(shuffled('echo $2 > "$1"'), { jobDir: folder.path, outputFile: 'all.txt', cleanupChunks: true, ...options });
    const status = await manager.waitForJob(id);
    expect(status.state).toBe(state);
    if (state === 'failed') expect(status.failure?.code).toBe('MERGE_FAILED');
    expect(folder.names()).toEqual(['part-0.txt', 'part-10.txt', 'part-20.txt', 'part-30.txt']);
  });

  it('[F97] cleanupChunks removes nothing when the merge command failed or made an empty file', async () => {
    for (const mergeCommand of ['false', "/bin/sh -c ': > all.txt'"]) {
      const folder = new Folder();
      await new JobExecutor(adapter()).execute({ ...shuffled('echo $2 > "$1"'), mergeCommand }, { jobDir: folder.path, outputFile: 'all.txt', cleanupChunks: true }).catch(() => undefined);
      expect(folder.names()).toEqual(expect.arrayContaining(['part-0.txt', 'part-10.txt', 'part-20.txt', 'part-30.txt']));
    }
  });

  it('[F97] cleanupChunks removes outputs that are folders, too', async () => {
    const folder = new Folder();
    const manager = manage(new JobExecutor(adapter()));
    const spec = shellJob(2, 'mkdir chunk-$1.txt; echo $1 > chunk-$1.txt/0001.png', [], { mergeCommand: "/bin/sh -c 'cat chunk-*/* > all.txt'" });
    const id = await manager.submitJob(spec, { jobDir: folder.path, outputFile: 'all.txt', cleanupChunks: true });
    expect(await manager.waitForJob(id)).toMatchObject({ state: 'completed', result: { bytes: 4 } });
    expect(folder.names()).toEqual(['all.txt']);
  });
});

describe('a job without chunks', () => {
  it('[F3] merges by its command and completes', async () => {
    const folder = new Folder();
    const manager = manage();
    const events = traceOf(manager);
    const id = await manager.submitJob({ chunks: [], mergeCommand: "/bin/sh -c 'printf x > all.txt'" }, { jobDir: folder.path, outputFile: 'all.txt' });
    const status = await manager.waitForJob(id);
    expect(status).toMatchObject({ state: 'completed', progress: 100, totalChunks: 0, completedChunks: 0, result: { bytes: 1 } });
    expect(typesOf(events, id)).toContain('merge.completed');
    expect(JSON.stringify(status)).not.toMatch(/NaN|null/);
  });

  it("[F3] is merged by a stitcher of the user's", async () => {
    const folder = new Folder();
    const stitcher = new ListStitcher();
    const manager = manage();
    const id = await manager.submitJob({ chunks: [] }, { jobDir: folder.path, stitcher, outputFile: 'all.txt' });
    expect((await manager.waitForJob(id)).state).toBe('completed');
    expect(stitcher.calls.map(({ inputs, output }) => [inputs, output])).toEqual([[[], folder.file('all.txt')]]);
  });

  it.each<[string, VideoStitcher | undefined]>([['ConcatStitcher', new ConcatStitcher()], ['FfmpegStitcher', new FfmpegStitcher()], ['nothing', undefined]])('[F3] completes with %s to merge it', async (_, stitcher) => {
    const folder = new Folder();
    const manager = manage();
    const id = await manager.submitJob({}, { jobDir: folder.path, outputFile: 'all.mp4', ...(stitcher ? { stitcher } : {}) });
    expect(await manager.waitForJob(id)).toMatchObject({ state: 'completed', progress: 100 });
  });

  it('[F3] fails when its merge fails', async () => {
    expect((await rejection(local().execute({ chunks: [], mergeCommand: 'false' }))).code).toBe('MERGE_FAILED');
  });
});

describe("a stitcher of the user's", () => {
  it('[F94] gets the final path and a signal', async () => {
    const folder = new Folder();
    const stitcher = new ListStitcher();
    await local().execute(shuffled('echo x > "$1"'), { jobDir: folder.path, stitcher, outputFile: 'film.mp4' });
    expect(stitcher.calls[0]).toMatchObject({ output: folder.file('film.mp4') });
    expect(stitcher.calls[0]?.signal).toBeInstanceOf(AbortSignal);
  });

  it.each(['cancelJob', 'pauseJob'] as const)('[F95] is told to stop by %s, which waits for it', async (call) => {
    const folder = new Folder();
    const merging = deferred();
    let stopped = false;
    const stitcher: VideoStitcher = {
      stitch: async (_, __, options) => {
        merging.resolve();
        await whenAborted(options?.signal).finally(async () => {
          await turn();
          stopped = true;
        });
      },
    };
    const manager = manage();
    const id = await manager.submitJob(shuffled('echo x > "$1"'), { jobDir: folder.path, stitcher, outputFile: 'film.mp4' });
    await merging.promise;
    await manager[call](id);
    expect(stopped).toBe(true);
    expect(await manager.getJob(id)).toMatchObject({ state: call === 'cancelJob' ? 'cancelled' : 'paused', completedChunks: 4 });
  });

  it('[F95] a merge program is gone when the cancel has resolved; a paused merge is done again by resumeJob', async () => {
    const folder = new Folder();
    const manager = manage();
    const spec = { ...shuffled('echo x >> ran'), mergeCommand: "/bin/sh -c 'echo $$ >> pids; [ $(wc -l < pids) = 2 ] || exec sleep 600'" };
    const id = await manager.submitJob(spec, { jobDir: folder.path });
    await until(() => folder.lines('pids').length === 1, 'the merge');
    await manager.pauseJob(id);
    expect(isAlive(Number(folder.lines('pids')[0]))).toBe(false);
    expect((await manager.getJob(id))?.state).toBe('paused');
    await manager.resumeJob(id);
    expect((await manager.waitForJob(id)).state).toBe('completed');
    expect(folder.lines('ran')).toHaveLength(4);

    const other = await manager.submitJob({ chunks: [], mergeCommand: "/bin/sh -c 'echo $$ > pid; exec sleep 600'" }, { jobDir: folder.path });
    await until(() => folder.has('pid') && folder.read('pid').endsWith('\n'), 'the second merge');
    await manager.cancelJob(other);
    expect(isAlive(Number(folder.read('pid')))).toBe(false);
    expect((await manager.getJob(other))?.state).toBe('cancelled');
  });

  it('that rejects is the cause of the failure', async () => {
    const folder = new Folder();
    const thrown = new Error('disk on fire');
    const error = await rejection(local().execute(shuffled('echo x > "$1"'), { jobDir: folder.path, stitcher: { stitch: () => Promise.reject(thrown) }, outputFile: 'a' }));
    expect(error.code).toBe('MERGE_FAILED');
    expect(error.message).toContain('disk on fire');
    expect(error.cause).toBe(thrown);
  });
});

describe('ConcatStitcher', () => {
  const stitcher = new ConcatStitcher();

  it('[F93] writes the bytes of its inputs one after the other', async () => {
    const folder = new Folder();
    const parts = [new Uint8Array([0, 255, 10, 13]), new Uint8Array(), Uint8Array.from({ length: 300_000 }, (_, n) => n * 7)];
    const inputs = parts.map((part, n) => folder.write(`it's "part" ${n} ü\n.bin`, part));
    await stitcher.stitch([...inputs, inputs[0]!], folder.file('new/folder/all.bin'));
    const whole = Buffer.concat([...parts, parts[0]!]);
    expect(readFileSync(folder.file('new/folder/all.bin')).equals(whole)).toBe(true);
  });

  it('[F94] puts the output in place at once: under its name there is all of it or what was there before', async () => {
    const folder = new Folder();
    const size = 48 * 1024 * 1024;
    const input = folder.write('big.bin', new Uint8Array(size).fill(7));
    const output = folder.write('all.bin', 'before');
    const sizes = new Set<number>();
    const partial = new Set<string>();
    const state = { done: false };
    const work = stitcher.stitch([input, input], output).finally(() => (state.done = true));
    while (!state.done) {
      sizes.add(statSync(output).size);
      for (const name of folder.names()) partial.add(name);
      await turn();
    }
    await work;
    sizes.add(statSync(output).size);
    expect([...sizes]).toEqual([6, 2 * size]);
    expect([...partial].length).toBeGreaterThan(2);
    expect(folder.names()).toEqual(['all.bin', 'big.bin']);
  });

  it('[F94] that fails leaves what was there, and nothing beside it', async () => {
    const folder = new Folder();
    const input = folder.write('a.bin', 'a');
    const output = folder.write('all.bin', 'before');
    const error = await rejection(stitcher.stitch([input, folder.file('missing.bin')], output));
    expect(error.code).toBe('MERGE_FAILED');
    expect(error.message).toContain('missing.bin');
    expect(folder.read('all.bin')).toBe('before');
    expect(folder.names()).toEqual(['a.bin', 'all.bin']);
  });

  it('[F94] that is aborted stops and leaves nothing', async () => {
    const folder = new Folder();
    const input = folder.write('big.bin', '');
    truncateSync(input, 64 * 1024 * 1024);
    const controller = new AbortController();
    const work = rejection(stitcher.stitch(Array.from({ length: 400 }, () => input), folder.file('all.bin'), { signal: controller.signal }));
    await until(() => folder.names().length > 1, 'the temporary file');
    controller.abort();
    const error = await work;
    expect([error.name, error.code]).toEqual(['AbortError', 'ABORTED']);
    expect(folder.names()).toEqual(['big.bin']);
  });

  it('[F93] refuses to write over one of its inputs', async () => {
    const folder = new Folder();
    const input = folder.write('a.bin', 'a');
    expect((await rejection(stitcher.stitch([input], folder.file('./a.bin')))).code).toBe('MERGE_FAILED');
    expect(folder.read('a.bin')).toBe('a');
  });
});

describe('FfmpegStitcher', () => {
  const onPath = spawnSync('ffmpeg', ['-version']).status === 0;
  const ffmpegPath = onPath ? 'ffmpeg' : ffmpegInstaller.path;
  const SIZE = 32 * 32 * 3;
  const frames = (count: number, value: number) => Buffer.alloc(count * SIZE, value);

  /** A video of grey frames, losslessly encoded. */
  function makeVideo(path: string, count: number, value: number): void {
    const words = ['-nostdin', '-y', '-loglevel', 'error', '-f', 'rawvideo', '-pix_fmt', 'rgb24', '-s', '32x32', '-r', '25', '-i', 'pipe:0', '-c:v', 'ffv1', '-pix_fmt', 'bgr0', path];
    const made = spawnSync(ffmpegPath, words.filter((word) => word !== '-nostdin'), { input: frames(count, value) });
    if (made.status !== 0) throw new Error(made.stderr.toString());
  }

  /** The grey of every frame. */
  function greys(path: string): number[] {
    const read = spawnSync(ffmpegPath, ['-nostdin', '-loglevel', 'error', '-i', path, '-f', 'rawvideo', '-pix_fmt', 'rgb24', '-vsync', '0', 'pipe:1'], { maxBuffer: 64 * 1024 * 1024 });
    if (read.status !== 0) throw new Error(read.stderr.toString());
    return Array.from({ length: read.stdout.length / SIZE }, (_, n) => read.stdout[n * SIZE]!);
  }


  it.each([['the one on PATH, if there is one', onPath ? {} : { ffmpegPath }], ['the one of the options', { ffmpegPath: ffmpegInstaller.path }]])('[F92] joins videos in their order, frame by frame, by %s', async (_, options) => {
    const folder = new Folder();
    const inputs = [50, 100, 200].map((grey, n) => {
      makeVideo(folder.file(`${n}.mkv`), n + 2, grey);
      return folder.file(`${n}.mkv`);
    });
    await new FfmpegStitcher(undefined, options).stitch(inputs, folder.file('film.mkv'));
    expect(greys(folder.file('film.mkv'))).toEqual([50, 50, 100, 100, 100, 200, 200, 200, 200]);
    expect(folder.names()).toEqual(['0.mkv', '1.mkv', '2.mkv', 'film.mkv']);
  });

  it('[F92] takes names with quotes, spaces, backslashes and letters of any language', async () => {
    const folder = new Folder();
    const names = ["it's 'one'.mkv", 'two  "double" %d.mkv', 'd:rei\\vier#, é 映画🎬.mkv', '-dash [x].mkv', " leading ' .mkv"];
    names.forEach((name, n) => makeVideo(folder.file(name), 1, 10 + n * 40));
    await new FfmpegStitcher(undefined, { ffmpegPath }).stitch(names.map((name) => folder.file(name)), folder.file("the film's #1 ü.mkv"));
    expect(greys(folder.file("the film's #1 ü.mkv"))).toEqual([10, 50, 90, 130, 170]);
  });

  it('[F92] refuses a name with a newline before anything is run', async () => {
    const folder = new Folder();
    const jobs: WorkerJob[] = [];
    const adapter: WorkerAdapter = { execute: async (job) => (jobs.push(job), chunkResult) };
    const error = await rejection(new FfmpegStitcher(adapter).stitch([folder.file('a\nfile b.mkv')], folder.file('film.mkv')));
    expect(error.message).toContain('newline');
    expect(jobs).toEqual([]);
    expect(folder.names()).toEqual([]);
  });

  it('[F94] writes beside the output and renames at the end', async () => {
    const folder = new Folder();
    makeVideo(folder.file('a.mkv'), 2, 77);
    folder.write('film.mkv', 'before');
    const inner = new LocalWorkerAdapter();
    const seen: string[][] = [];
    const adapter: WorkerAdapter = {
      execute: async (job) => {
        const result = await inner.execute(job);
        seen.push([folder.read('film.mkv'), ...folder.names().filter((name) => name.endsWith('.mkv'))]);
        return result;
      },
    };
    await new FfmpegStitcher(adapter, { ffmpegPath }).stitch([folder.file('a.mkv')], folder.file('film.mkv'));
    expect(seen).toHaveLength(1);
    expect(seen[0]![0]).toBe('before');
    expect(seen[0]).toHaveLength(4);
    expect(greys(folder.file('film.mkv'))).toEqual([77, 77]);
    expect(folder.names()).toEqual(['a.mkv', 'film.mkv']);
  });

  it('[F94] that fails says why, leaves what was there, and nothing beside it', async () => {
    const folder = new Folder();
    folder.write('broken.mkv', 'this is no video');
    folder.write('film.mkv', 'before');
    const error = await rejection(new FfmpegStitcher(undefined, { ffmpegPath }).stitch([folder.file('broken.mkv')], folder.file('film.mkv')));
    expect(error.code).toBe('MERGE_FAILED');
    expect(error.message).toMatch(/invalid data/i);
    expect(folder.read('film.mkv')).toBe('before');
    expect(folder.names()).toEqual(['broken.mkv', 'film.mkv']);
  });

  it('[F94] that is aborted rejects with an AbortError and leaves nothing', async () => {
    const folder = new Folder();
    const controller = new AbortController();
    const adapter: WorkerAdapter = {
      execute: ({ args, signal }) => {
        folder.write(args!.at(-1)!.slice(folder.path.length + 1), 'half');
        controller.abort();
        return whenAborted(signal);
      },
    };
    const error = await rejection(new FfmpegStitcher(adapter).stitch([folder.file('a.mkv')], folder.file('film.mkv'), { signal: controller.signal }));
    expect(error.name).toBe('AbortError');
    expect(folder.names()).toEqual([]);
  });

  it('[F92][F94] merges the chunks of a job, and the result tells where and how big', async () => {
    const folder = new Folder();
    const chunks = [2, 0, 1].map((id) => ({
      id, startFrame: id * 4, frameCount: 4, outputFile: `shots/shot ${id}.mkv`,
      argv: [ffmpegPath, '-nostdin', '-y', '-loglevel', 'error', '-f', 'lavfi', '-i', `color=size=32x32:rate=25:color=0x${((id + 1) * 40).toString(16).repeat(3)}`, '-frames:v', '{frameCount}', '-c:v', 'ffv1', '-pix_fmt', 'bgr0', '{outputFile}'],
    }));
    const manager = manage();
    const merged = nextEvent(manager, 'merge.completed');
    const id = await manager.submitJob({ chunks }, { jobDir: folder.path, concurrency: 2, stitcher: new FfmpegStitcher(undefined, { ffmpegPath }), outputFile: 'film.mkv', cleanupChunks: true });
    const status = await manager.waitForJob(id);
    expect(status.error).toBeUndefined();
    expect((await merged).durationMs).toBeGreaterThan(0);
    expect(status.result).toEqual({ path: folder.file('film.mkv'), bytes: statSync(folder.file('film.mkv')).size });
    const all = greys(folder.file('film.mkv'));
    expect(all).toHaveLength(12);
    for (const [n, grey] of all.entries()) expect(Math.abs(grey - (Math.floor(n / 4) + 1) * 40)).toBeLessThan(4);
    expect(folder.names()).toEqual(['film.mkv', 'shots']);
  });

  it('a missing ffmpeg is SPAWN_FAILED, named', async () => {
    const folder = new Folder();
    const error = await rejection(new FfmpegStitcher(undefined, { ffmpegPath: '/nowhere/ffmpeg' }).stitch([folder.file('a.mkv')], folder.file('film.mkv')));
    expect(error.code).toBe('SPAWN_FAILED');
    expect(error.message).toContain('/nowhere/ffmpeg');
    expect(folder.names()).toEqual([]);
  });
});
