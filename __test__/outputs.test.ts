import { ConcatStitcher, InMemoryJobRepository, JobExecutor, type FramewrightError, type JobExecutionOptions } from 'framewright';
import { existsSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { Folder } from './support/folder.js';
import { open } from './support/managers.js';
import { rejection } from './support/rejection.js';
import { adapters, local } from './support/shell.js';

const manage = (executor: JobExecutor = local()) => open(new InMemoryJobRepository(), executor);
const chunk = (script: string, outputFile: string, id = 0) => ({ id, outputFile, argv: ['/bin/sh', '-c', script, '{outputFile}'] });

describe('outputs of processes', () => {
  it('[F65] names that tools put a number in are handed over as they are', async () => {
    const folder = new Folder();
    const manager = manage();
    const chunks = [chunk('for n in 1 2; do touch "$(printf "$0" $n)"; done', 'seq/%03d.png'), chunk('touch "${0%####}0007.png"', 'blender/frame_####', 1)];
    expect((await manager.waitForJob(await manager.submitJob({ chunks }, { jobDir: folder.path }))).state).toBe('completed');
    expect(readdirSync(folder.file('seq')).toSorted()).toEqual(['001.png', '002.png']);
    expect(readdirSync(folder.file('blender'))).toEqual(['frame_0007.png']);
  });

  it('[F65] names that a tool makes by adding to the one it is given have that of the output, once the chunk is done', async () => {
    const folder = new Folder();
    const manager = manage();
    const frames = (id: number) => chunk(`printf a > "$0"0001.png; printf b > "$0"0002.png; exit ${id}`, `frames/shot${id}_`, id);
    const id = await manager.submitJob({ chunks: [frames(0), frames(1)] }, { jobDir: folder.path, failurePolicy: 'continue' });
    expect(await manager.waitForJob(id)).toMatchObject({ state: 'failed', completedChunks: 1 });
    // Of the chunk that failed nothing is left.
    expect(readdirSync(folder.file('frames')).toSorted()).toEqual(['shot0_0001.png', 'shot0_0002.png']);
    expect(folder.read('frames/shot0_0002.png')).toBe('b');
  });

  it('[F65] what one chunk writes is left alone by the next attempt of another whose name differs in its extension', async () => {
    const folder = new Folder();
    const manager = manage();
    const both = [
      chunk('echo a > "$0"; until [ -e done ]; do sleep 0.01; done', 'a.txt'),
      chunk('[ -e again ] && { echo b > "$0"; touch done; } || { touch again; exit 1; }', 'a', 1),
    ];
    const id = await manager.submitJob({ chunks: both }, { jobDir: folder.path, retries: 1, retryDelay: 0, concurrency: 2 });
    expect((await manager.waitForJob(id)).state).toBe('completed');
    expect([folder.read('a.txt'), folder.read('a')]).toEqual(['a\n', 'b\n']);
  });

  it('[F65] a folder takes the place of one that is there', async () => {
    const folder = new Folder();
    for (const content of ['first', 'second']) {
      const manager = manage();
      const spec = { chunks: [chunk(`mkdir "$0" && echo ${content} > "$0"/${content}.png`, 'frames')] };
      expect((await manager.waitForJob(await manager.submitJob(spec, { jobDir: folder.path }))).state).toBe('completed');
    }
    expect(readdirSync(folder.file('frames'))).toEqual(['second.png']);
    expect(folder.names()).toEqual(['frames']);
  });

  it('[F65] what a killed attempt left is removed by the next one, and nothing else', async () => {
    const folder = new Folder();
    const others = ['.a.9-0123abcd.partial.bin', '.b.1-0123abcd.partial.bin', '.a.1-mine.partial.bin', '.a.bin'];
    // As if the process that ran the first attempt had been killed with the program.
    for (const name of ['.a.1-0123abcd.partial.bin', ...others]) writeFileSync(folder.file(name), 'x');
    const manager = manage();
    const spec = { chunks: [chunk('[ -e again ] && echo whole > "$0" || { touch again; exit 1; }', 'a.bin')] };
    const id = await manager.submitJob(spec, { jobDir: folder.path, retries: 1, retryDelay: 0 });
    expect((await manager.waitForJob(id)).state).toBe('completed');
    expect(folder.names().toSorted()).toEqual([...others, 'a.bin', 'again'].toSorted());
  });
});

describe.each(adapters)('allowOutsidePaths: false, chunks $kind', ({ adapter }) => {
  const executor = (): JobExecutor => new JobExecutor(adapter());

  it('[F4] the folder of the job is made where it is not there', async () => {
    const folder = new Folder();
    const manager = manage(executor());
    const jobDir = folder.file('new/job');
    // An adapter of the user's starts programs in a folder that it has to make itself.
    mkdirSync(folder.file('new'));
    const spec = { chunks: [{ id: 0, outputFile: 'out/a', argv: ['/bin/sh', '-c', `mkdir -p ${jobDir}/out && echo a > ${jobDir}/out/a`] }] };
    const status = await manager.waitForJob(await manager.submitJob(spec, { jobDir, allowOutsidePaths: false }));
    expect([status.state, existsSync(join(jobDir, 'out/a'))]).toEqual(['completed', true]);
  });

  it.each(['../film', '/film', 'a/../../film'])('[F4] the merged output must not be %s', async (outputFile) => {
    const folder = new Folder();
    const options: JobExecutionOptions = { jobDir: folder.path, allowOutsidePaths: false, stitcher: new ConcatStitcher(), outputFile };
    const error: FramewrightError = await rejection(manage(executor()).submitJob({ chunks: [] }, options));
    expect([error.code, error.issues?.map((issue) => issue.path)]).toEqual(['VALIDATION', ['outputFile']]);
  });

  it('[F4] nor may it leave the folder by a link', async () => {
    const [folder, elsewhere] = [new Folder(), new Folder()];
    const manager = manage(executor());
    const mergeCommand = `/bin/sh -c 'echo film > "$0"' {outputFile}`;
    const spec = { chunks: [{ id: 0, argv: ['/bin/ln', '-s', elsewhere.path, folder.file('link')] }], mergeCommand };
    const status = await manager.waitForJob(await manager.submitJob(spec, { jobDir: folder.path, allowOutsidePaths: false, outputFile: 'link/film' }));
    expect([status.state, elsewhere.names()]).toEqual(['failed', []]);
    expect(status.error).toContain("leaves the job's folder");
  });
});

describe('the output of a merge command', () => {
  it.each([
    ['fails', 'echo part > "$0"; exit 3', 'failed', 'before'],
    ['ends well', 'echo whole > "$0"', 'completed', 'whole\n'],
  ])('[F94] takes the place of an older one only when it is whole: it %s', async (_, script, state, film) => {
    const folder = new Folder();
    writeFileSync(folder.file('film.txt'), 'before');
    const manager = manage();
    const spec = { chunks: [], mergeCommand: `/bin/sh -c '${script}' {outputFile}` };
    const status = await manager.waitForJob(await manager.submitJob(spec, { jobDir: folder.path, outputFile: 'film.txt' }));
    expect([status.state, folder.read('film.txt'), folder.names()]).toEqual([state, film, ['film.txt']]);
  });

  it('[F91] its folder and that of the job are made', async () => {
    const folder = new Folder();
    const manager = manage();
    const spec = { chunks: [], mergeCommand: `/bin/sh -c 'echo film > "$0"' {outputFile}` };
    const status = await manager.waitForJob(await manager.submitJob(spec, { jobDir: folder.file('new'), outputFile: 'films/film.txt' }));
    expect(status).toMatchObject({ state: 'completed', result: { path: folder.file('new/films/film.txt'), bytes: 5 } });
  });

  it('[F98] a stitcher of the user\'s may put it elsewhere where outputs are not looked at', async () => {
    const folder = new Folder();
    const manager = manage();
    const options: JobExecutionOptions = { jobDir: folder.path, stitcher: { stitch: () => Promise.resolve() }, outputFile: 'film.txt', verifyOutput: 'none' };
    const status = await manager.waitForJob(await manager.submitJob({ chunks: [] }, options));
    expect([status.state, status.result]).toEqual(['completed', undefined]);
  });
});
