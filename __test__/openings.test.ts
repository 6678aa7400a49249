/** Opening repositories by URL: the good, the bad and the damaged. */
import { execFileSync } from 'node:child_process';
import { chmodSync, existsSync, mkdirSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { inspect } from 'node:util';
import { FileJobRepository, InMemoryJobRepository, MysqlJobRepository, PostgresJobRepository, SqliteJobRepository, openRepository, type JobRepository } from 'framewright';
import { describe, expect, it, vi } from 'vitest';
import { Folder } from './support/folder.js';
import { afterManagers, open } from './support/managers.js';
import { OwnExecutor } from './support/own-executor.js';
import { Peer } from './support/peer.js';
import { rejection } from './support/rejection.js';
import { durables, shared, type DurableStore } from './support/repositories.js';
import { specOf } from './support/specs.js';
import { statusOf } from './support/statuses.js';
import { mysql, psql } from './support/stores.js';
import { nextEvent } from './support/trace.js';

async function opened<T extends JobRepository & { close(): Promise<void> }>(repository: T | Promise<T>): Promise<T> {
  const found = await repository;
  afterManagers(() => found.close());
  return found;
}

const schemaOf = (store: DurableStore): string => new URL(store.url).searchParams.get('schema') ?? new URL(store.url).pathname.slice(1);
const kindOf = (store: DurableStore): string => new URL(store.url).protocol;
/** Where a store of files or SQLite is. */
const pathOf = (store: DurableStore): string => store.url.slice(store.url.indexOf(':') + 1);

describe('openRepository', () => {
  it('gives the class that the URL names', async () => {
    const folder = new Folder().path;
    expect(await openRepository('memory:')).toBeInstanceOf(InMemoryJobRepository);
    expect(await opened(openRepository(`file:${folder}/jobs`))).toBeInstanceOf(FileJobRepository);
    expect(await opened(openRepository(`sqlite:${folder}/jobs.db`))).toBeInstanceOf(SqliteJobRepository);
    expect(await opened(openRepository(shared[1]!.create().url))).toBeInstanceOf(PostgresJobRepository);
  });

  it('decodes paths: spaces, question marks, percent signs, letters beyond ASCII', async () => {
    const folder = new Folder().path;
    const name = 'a b?c%20d#é';
    for (const [url, made] of [
      [`sqlite:${folder}/${encodeURIComponent(name)}.db?synchronous=normal`, `${name}.db`],
      [`file://${folder}/${encodeURIComponent(name)}`, name],
      [`sqlite:${folder}/plain%2Bplus+.db`, 'plain+plus+.db'],
    ] as const) {
      const repository = await opened(openRepository(url));
      await repository.save(statusOf('a'));
      expect(existsSync(join(folder, made))).toBe(true);
    }
  });

  it.each([
    ['', 'empty'],
    ['jobs.db', 'without a scheme'],
    ['SQLITE', 'without a colon'],
    ['redis://127.0.0.1', 'of another system'],
    ['memory:x', 'with more than memory needs'],
    ['sqlite:', 'without a path'],
    ['file:', 'without a directory'],
    ['sqlite:/tmp/%zz.db', 'with a bad escape'],
    ['sqlite:/tmp/a%00b.db', 'with a NUL'],
    ['sqlite:/tmp/framewright-never.db?synchronous=off', 'with a value that is none'],
    ['sqlite:/tmp/framewright-never.db?sync=full', 'with an unknown parameter'],
    ['file:/tmp/framewright-never?max=1', 'with a parameter that files do not have'],
    ['postgres://postgres@127.0.0.1/test?max=0', 'with no connection'],
    ['postgres://postgres@127.0.0.1/test?max=many', 'with a number that is none'],
    ['postgres://postgres@127.0.0.1:port/test', 'with a port that is no number'],
    ['mysql://root@127.0.0.1/test?max=-1', 'with a negative number'],
    ['postgres://postgres@127.0.0.1/test?sslmod=verify-full', 'with a misspelt parameter'],
    ['mysql://root@127.0.0.1/test?schema=jobs', 'with a parameter of another server'],
    [5 as unknown as string, 'that is a number'],
  ])('refuses %j, a URL %s', async (url) => {
    const error = await rejection(openRepository(url));
    expect(error.code).toBe('VALIDATION');
    expect(existsSync('/tmp/framewright-never.db')).toBe(false);
  });

  it('[F110] says that the server is away, or refuses, and never prints the password', async () => {
    for (const url of [
      'postgres://someone:s3cr3t-w0rd@127.0.0.1:9/test',
      'postgres://nobody_such:s3cr3t-w0rd@127.0.0.1:5432/no_such_database',
      'mysql://nobody_such:s3cr3t-w0rd@127.0.0.1:3306/test',
    ]) {
      const error = await rejection(openRepository(url));
      expect(error.code).toBe('STORE_UNAVAILABLE');
      expect(error.message.length).toBeGreaterThan(10);
      for (const text of [error.message, error.stack, inspect(error, { depth: 9 }), JSON.stringify(error)]) expect(text).not.toContain('s3cr3t-w0rd');
    }
    for (const call of [
      () => PostgresJobRepository.connect('postgres://nobody_such:s3cr3t-w0rd@127.0.0.1:5432/no_such_database'),
      () => MysqlJobRepository.connect('mysql://nobody_such:s3cr3t-w0rd@127.0.0.1:3306/test'),
    ]) {
      const error = await rejection(call());
      expect(error.code).toBe('STORE_UNAVAILABLE');
      expect(inspect(error, { depth: 9 })).not.toContain('s3cr3t-w0rd');
    }
    for (const url of ['postgres://someone:s3cr3t-w0rd@127.0.0.1:port/test', 'postgres://127.0.0.1/test?user=someone&pasword=s3cr3t-w0rd']) {
      expect(inspect(await rejection(openRepository(url)), { depth: 9 })).not.toContain('s3cr3t-w0rd');
    }
  }, 60_000);

  it('says of a file that is not a database, and of a directory of something else, that it is no store, and leaves it as it is', async () => {
    const folder = new Folder().path;
    const file = join(folder, 'jobs.db');
    writeFileSync(file, 'These are my notes, and no database at all. '.repeat(100));
    const before = readFileSync(file, 'utf8');
    expect((await rejection(openRepository(`sqlite:${file}`))).code).toBe('STORE_CORRUPT');
    expect(readFileSync(file, 'utf8')).toBe(before);
    const directory = join(folder, 'file');
    writeFileSync(directory, 'x');
    expect((await rejection(openRepository(`file:${directory}`))).code).toMatch(/^STORE_/);
  });

  it('a file store that cannot be opened tells it to the first call of a repository made by `new`', async () => {
    const folder = new Folder().path;
    const path = join(folder, 'file');
    writeFileSync(path, 'x');
    const repository = new FileJobRepository(path);
    afterManagers(() => repository.close().catch(() => undefined));
    expect((await rejection(repository.list())).code).toMatch(/^STORE_/);
    const manager = open(repository, new OwnExecutor());
    expect((await rejection(manager.submitJob(specOf(1)))).code).toMatch(/^STORE_/);
    expect((await rejection(manager.getJob('a'))).code).toMatch(/^STORE_/);
    rmSync(path);
  });

  it('[F110] a place or a file that may not be written to is STORE_UNAVAILABLE, by its name', async () => {
    const folder = new Folder().path;
    const closed = join(folder, 'closed');
    mkdirSync(closed);
    await (await openRepository(`sqlite:${closed}/there.db`)).close();
    await (await openRepository(`file:${closed}/there`)).close();
    for (const path of [folder, closed, join(closed, 'there')]) chmodSync(path, 0o555);
    for (const name of readdirSync(closed, { recursive: true, encoding: 'utf8' })) chmodSync(join(closed, name), statSync(join(closed, name)).isDirectory() ? 0o555 : 0o444);
    const urls = ['sqlite:new.db', 'sqlite:there.db', 'file:new', 'file:there'].map((url) => url.replace(':', `:${closed}/`));
    const script = `
      const { openRepository } = require(${JSON.stringify(join(import.meta.dirname, '..'))});
      Promise.allSettled(${JSON.stringify(urls)}.map((url) => openRepository(url))).then((opened) => {
        console.log(JSON.stringify(opened.map(({ status, reason }) => (status === 'fulfilled' ? 'opened' : [reason.code, reason.message]))));
        process.exit();
      });`;
    // Nothing is closed to root.
    const nobody = process.getuid?.() === 0 ? { uid: 65_534, gid: 65_534 } : {};
    const told = JSON.parse(execFileSync(process.execPath, ['-e', script], { cwd: '/', encoding: 'utf8', ...nobody })) as unknown[];
    for (const path of [folder, closed, join(closed, 'there')]) chmodSync(path, 0o755);
    expect(told).toEqual(urls.map((url) => ['STORE_UNAVAILABLE', expect.stringContaining(url.slice(url.indexOf(':') + 1)) as string]));
  });

  it('[F110] a place that cannot be made is STORE_UNAVAILABLE', async () => {
    const folder = new Folder().path;
    writeFileSync(join(folder, 'file'), 'x');
    for (const url of [`sqlite:${folder}/file/jobs.db`, `file:${folder}/file/jobs`, `sqlite:/proc/framewright/jobs.db`, `file:/proc/framewright/jobs`]) {
      const error = await rejection(openRepository(url));
      expect(error.code).toBe('STORE_UNAVAILABLE');
      expect(error.message).toMatch(/proc|file/);
    }
  });
});

/** Writes a version of the format that is not known yet. */
function makeNewer(store: DurableStore): void {
  if (kindOf(store) === 'mysql:') {
    mysql(`UPDATE ${schemaOf(store)}.framewright_schema SET version = 999`);
    return;
  }
  if (kindOf(store) === 'postgres:') psql(`UPDATE ${schemaOf(store)}.framewright_schema SET version = 999`);
  else if (kindOf(store) === 'file:') writeFileSync(join(pathOf(store), 'FORMAT'), readFileSync(join(pathOf(store), 'FORMAT'), 'utf8').replace(/\d+/, '999'));
  else {
    // user_version: four bytes at 60 of the header.
    const bytes = readFileSync(pathOf(store));
    bytes.writeUInt32BE(999, 60);
    writeFileSync(pathOf(store), bytes);
  }
}

describe.each(durables)('a store of $kind', ({ create }) => {
  it('[F109] of a newer version is refused with STORE_UNAVAILABLE, and left as it is', async () => {
    const store = create();
    const repository = await store.open();
    await repository.save(statusOf('a'));
    await repository.close();
    makeNewer(store);
    const error = await rejection(openRepository(store.url));
    expect(error.code).toBe('STORE_UNAVAILABLE');
    expect(error.message).toContain('999');
    expect((await rejection(openRepository(store.url))).message).toContain('999');
  });

  it('refuses calls with CLOSED or STORE_UNAVAILABLE once it is closed, and closes twice', async () => {
    const repository = await create().open();
    await repository.save(statusOf('a'));
    await repository.close();
    await repository.close();
    const calls = [repository.get('a'), repository.list(), repository.save(statusOf('b')), repository.delete('a')];
    for (const { code } of await Promise.all(calls.map((call) => rejection(call)))) expect(['CLOSED', 'STORE_UNAVAILABLE']).toContain(code);
  });

  it('[F107] with a damaged job opens, gives the others, warns when it lists, and is well again when that job is deleted', async () => {
    const store = create();
    const first = await store.open();
    for (const id of ['good', 'bad', 'fine']) await first.save(statusOf(id, { name: `name of ${id}` }));
    await first.close();
    damage(store, 'bad');
    const repository = await store.open();
    const manager = open(repository, new OwnExecutor());
    expect((await rejection(repository.get('bad'))).code).toBe('STORE_CORRUPT');
    const error = await rejection(manager.getJob('bad'));
    expect(error.code).toBe('STORE_CORRUPT');
    expect(error.message).toContain('bad');
    expect(await repository.get('good')).toMatchObject({ name: 'name of good' });
    const warned = nextEvent(manager, 'job.warning');
    expect((await manager.listJobs()).map((job) => job.id)).toEqual(['good', 'fine']);
    expect((await warned).message).toContain('bad');
    expect((await repository.list()).map((job) => job.id)).toEqual(['good', 'fine']);
    // The others go on as if nothing had been.
    await manager.resumeJob('fine');
    expect((await manager.waitForJob('fine')).state).toBe('completed');
    await manager.deleteJob('bad');
    expect(await repository.get('bad')).toBeUndefined();
    await repository.save(statusOf('bad', { name: 'anew' }));
    expect((await repository.list()).map((job) => job.id).sort()).toEqual(['bad', 'fine', 'good']);
    expect(await manager.getJob('bad')).toMatchObject({ name: 'anew' });
  });
});

/** Damages what is kept of one job. */
function damage(store: DurableStore, id: string): void {
  if (['postgres:', 'mysql:'].includes(kindOf(store))) {
    const run = kindOf(store) === 'mysql:' ? mysql : psql;
    const schema = schemaOf(store);
    run(`UPDATE ${schema}.framewright_jobs SET head = 'no json' WHERE id = '${id}'`);
    return;
  }
  // The name is written in the record of that job only: its first letters change, wherever they are.
  const mark = Buffer.from(`name of ${id}`);
  const files = kindOf(store) === 'file:' ? readdirSync(pathOf(store), { recursive: true }).map((name) => join(pathOf(store), name as string)) : [pathOf(store)];
  let found = 0;
  for (const file of files) {
    if (!statSync(file).isFile()) continue;
    const bytes = readFileSync(file);
    for (let at = bytes.indexOf(mark); at >= 0; at = bytes.indexOf(mark, at + 1)) {
      bytes.fill(0xff, at - 4, at + 4);
      found += 1;
    }
    writeFileSync(file, bytes);
  }
  if (found === 0) throw new Error(`nothing of job ${id} was found`);
}

describe('a store of files', () => {
  const journalOf = (store: DurableStore, id: string): string => join(pathOf(store), 'jobs', `${id}.journal`);

  /** Opens the store, saves a job under several names, one after the other, and closes it. */
  async function named(store: DurableStore, id: string, ...names: string[]): Promise<void> {
    const repository = await store.open();
    for (const name of names) await repository.save(statusOf(id, { name }));
    await repository.close();
  }

  it('[F100] writes a journal anew when it has grown, and leaves nothing else behind', async () => {
    const store = durables[0]!.create();
    for (let n = 0; n < 6; n += 1) await named(store, 'a', ...Array.from({ length: 20 }, (_, m) => `${n}.${m} ${'x'.repeat(50_000)}`));
    // Of six million bytes that were saved the last fifty thousand count.
    expect(statSync(journalOf(store, 'a')).size).toBeLessThan(20 * 50_000 + 4 * 50_000);
    expect(readdirSync(join(pathOf(store), 'jobs'))).toEqual(['a.journal']);
    const repository = await store.open();
    expect((await repository.get('a'))?.name).toMatch(/^5\.19 x{50000}$/);
  });

  it('[F100] drops a tail that was cut off, of a journal and of the log', async () => {
    const store = durables[0]!.create();
    await named(store, 'a', 'first', 'second');
    const journal = readFileSync(journalOf(store, 'a'));
    writeFileSync(journalOf(store, 'a'), journal.subarray(0, -3));
    const peer = await Peer.start();
    await peer.open(store.url);
    await peer.run(`await kept.repository.save(${JSON.stringify(statusOf('b', { name: 'acknowledged' }))})`);
    await peer.kill();
    const log = join(pathOf(store), 'wal', readdirSync(join(pathOf(store), 'wal')).sort().at(-1)!);
    // Half of a group: what was being written when the power went.
    const bytes = readFileSync(log);
    writeFileSync(log, Buffer.concat([bytes, bytes.subarray(bytes.length >> 1, -7)]));
    const repository = await store.open();
    expect((await repository.list()).map(({ id, name }) => [id, name])).toEqual([['a', 'first'], ['b', 'acknowledged']]);
    await repository.save(statusOf('a', { name: 'third' }));
    expect(await repository.get('a')).toMatchObject({ name: 'third' });
  });

  it('[F100] reports a journal that is damaged in its middle, and keeps it as it was found', async () => {
    const store = durables[0]!.create();
    await named(store, 'a', 'first', 'second', 'third');
    await named(store, 'b', 'other');
    const journal = readFileSync(journalOf(store, 'a'));
    const at = journal.indexOf('second');
    journal.writeUInt8(journal.readUInt8(at) ^ 1, at);
    writeFileSync(journalOf(store, 'a'), journal);
    const repository = await store.open();
    const error = await rejection(repository.get('a'));
    expect(error.code).toBe('STORE_CORRUPT');
    expect(error.message).toContain('"a"');
    expect((await repository.list()).map(({ id }) => id)).toEqual(['b']);
    const [kept] = readdirSync(join(pathOf(store), 'quarantine'));
    expect(readFileSync(join(pathOf(store), 'quarantine', kept!))).toEqual(journal);
  });

  it('[F107] has one process: a second one is refused, and takes over when the first is killed', async () => {
    const store = durables[0]!.create();
    const peer = await Peer.start();
    await peer.open(store.url, '{ execute: (spec, { signal }) => new Promise(() => {}) }');
    await peer.run(`
      const started = new Promise((resolve) => kept.manager.once('job.started', resolve));
      await kept.manager.submitJob({ chunks: [{ id: 0, command: 'x' }, { id: 1, command: 'x' }] }, { id: 'a' });
      await started;
    `);
    const error = await rejection(openRepository(store.url));
    expect(error.code).toBe('STORE_UNAVAILABLE');
    expect(error.message).toContain(String(peer.pid));
    await peer.kill();
    const executor = new OwnExecutor();
    const manager = open(await store.open(), executor);
    expect(await manager.waitForJob('a')).toMatchObject({ state: 'completed', completedChunks: 2, recoveries: [{ previousState: 'running' }] });
    expect(executor.calls).toHaveLength(1);
  });

  it('opens twice in one process', async () => {
    const store = durables[0]!.create();
    const [one, other] = [await store.open(), await store.open()];
    await one.save(statusOf('a'));
    expect(await other.get('a')).toMatchObject({ id: 'a' });
    await one.close();
    await other.save(statusOf('b'));
    expect((await other.list()).map((job) => job.id)).toEqual(['a', 'b']);
  });
});

describe.each(durables)('a repository in $kind with a method of the user in place of its own', ({ create }) => {
  it('[F149] has all changes saved through it, and the manager warns of what that means', async () => {
    const repository = await create().open();
    const save = vi.spyOn(repository, 'save');
    const executor = new OwnExecutor();
    const manager = open(repository, executor);
    const warning = await nextEvent(manager, 'job.warning');
    expect(warning.message).toContain('save');
    const id = await manager.submitJob(specOf(3), { id: 'a', meta: { mine: 1 } });
    expect(await manager.waitForJob(id)).toMatchObject({ state: 'completed', completedChunks: 3 });
    const states = save.mock.calls.map(([job]) => job.state as string);
    expect(states.filter((state, n) => state !== states[n - 1])).toEqual(['pending', 'running', 'completed']);
    expect(await repository.get(id)).toMatchObject({ state: 'completed', completedChunks: 3, progress: 100, meta: { mine: 1 } });
    await manager.deleteJob(id);
    expect(await repository.get(id)).toBeUndefined();
    expect(executor.calls).toHaveLength(1);
  });

  it('[F149] is warned of by its logger too, and others on it are not', async () => {
    const repository = await create().open();
    const records: string[] = [];
    const logger = (record: { message: string }): void => void records.push(record.message);
    const plain = open(repository, new OwnExecutor(), { logger });
    await plain.waitForJob(await plain.submitJob(specOf(1)));
    expect(records).toEqual([]);
    vi.spyOn(repository, 'list');
    const manager = open(repository, new OwnExecutor(), { logger });
    await nextEvent(manager, 'job.warning');
    expect(records).toHaveLength(1);
    expect(records[0]).toContain('list');
    await manager.listJobs();
    expect(repository.list).toHaveBeenCalledOnce();
  });
});
