// How long it takes from the death of a job's owner to the next start of a chunk, on one host:
//
//   node bench/kills.mjs --store sqlite:/tmp/jobs.db --kills 100 [--seed 1]
//
// Two workers share the store; the one that runs the job is killed with SIGKILL at a random moment, the other one goes on.
// A store of files is opened by one process at a time: there the next one is started after the kill, and its start counts.
// Also checked: no attempt is begun twice, none after the one that was accepted, and none while an earlier one still runs.
import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';

const { values } = parseArgs({ options: { store: { type: 'string' }, kills: { type: 'string', default: '100' }, seed: { type: 'string', default: '1' } } });
if (!values.store) throw new Error('--store is missing: a URL as openRepository takes it, of a new store');
const kills = Number(values.kills);
const isShared = !values.store.startsWith('file:');
const folder = mkdtempSync(join(tmpdir(), 'framewright-kills-'));
const ledger = join(folder, 'ledger');
writeFileSync(ledger, '');
const tests = join(import.meta.dirname, '..', '__test__', 'workers');
const CHUNKS = 50;

let state = Number(values.seed);
function below(end) {
  state = (state + 0x6d2b79f5) | 0;
  let t = Math.imul(state ^ (state >>> 15), 1 | state);
  t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
  return Math.floor((((t ^ (t >>> 14)) >>> 0) / 2 ** 32) * end);
}

const started = new Set();

function worker() {
  const child = spawn(process.execPath, [join(tests, 'worker.mjs'), JSON.stringify({ url: values.store, folder })], { stdio: ['ignore', 'ignore', 'inherit', 'ipc'] });
  started.add(child);
  const calls = new Map();
  let n = 0;
  const gone = new Promise((resolve) => child.once('exit', resolve)).then(() => started.delete(child));
  const ready = new Promise((resolve) => {
    child.on('message', (message) => {
      if (message.ready) resolve();
      if (message.n === undefined) return;
      const { resolve: done, reject } = calls.get(message.n);
      if (message.error) reject(Object.assign(new Error(message.error.message), { code: message.error.code }));
      else done(message.value);
    });
  });
  const call = (name, ...args) =>
    new Promise((resolve, reject) => {
      calls.set((n += 1), { resolve, reject });
      child.send({ n, call: name, args });
    });
  return { ready, gone, call, kill: () => child.kill('SIGKILL') };
}

function entries() {
  return readFileSync(ledger, 'utf8')
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => {
      const [what, job, chunk, attempt, pid, at, owner] = line.split(' ');
      return { what, job, chunk: Number(chunk), attempt: Number(attempt), pid: Number(pid), at: Number(at), owner };
    });
}

async function begun(is) {
  const limit = Date.now() + 30_000;
  for (;;) {
    const found = entries().find((entry) => entry.what === 'begin' && is(entry));
    if (found) return found.at;
    if (Date.now() > limit) throw new Error('nothing went on for 30 s');
    await sleep(5);
  }
}

const times = [];
const ids = [];
try {
  let owner = worker();
  await owner.ready;
  let standby = isShared ? worker() : undefined;
  for (let kill = 0; kill < kills; kill += 1) {
    await standby?.ready;
    const ends = new Set(entries().filter(({ what, job }) => what === 'end' && job === ids.at(-1)).map(({ chunk }) => chunk)).size;
    if (ids.length === 0 || ends > CHUNKS - 15) {
      const argv = ['/bin/sh', join(tests, 'chunk.sh'), folder, '{jobId}', '{chunkId}', '{attempt}', '0.03'];
      const id = `kills-${ids.length}`;
      await owner.call('submitJob', { id, chunks: Array.from({ length: CHUNKS }, (_, n) => ({ id: n, outputFile: `chunk-${n}`, argv })) }, { id, concurrency: 2, crashRetries: 1000 });
      ids.push(id);
    }
    const now = Date.now();
    await begun(({ at }) => at > now);
    await sleep(below(80));
    const known = new Set(entries().map((entry) => entry.owner));
    owner.kill();
    const killed = Date.now();
    await owner.gone;
    owner = standby ?? worker();
    times.push((await begun((entry) => !known.has(entry.owner))) - killed);
    await owner.ready;
    standby = isShared ? worker() : undefined;
  }
  await standby?.ready;
  writeFileSync(join(folder, 'fast'), '');
  let wrong = 0;
  for (const id of ids) {
    const status = await owner.call('waitForJob', id);
    if (status.state !== 'completed' || status.completedChunks !== CHUNKS) {
      wrong += 1;
      process.stderr.write(`${id} is ${status.state}, ${status.completedChunks} of ${CHUNKS}\n`);
    }
    const all = entries().filter((entry) => entry.what === 'begin' && entry.job === id);
    for (const { id: chunk, attempt } of await owner.call('chunks', id)) {
      const attempts = all.filter((entry) => entry.chunk === chunk).map((entry) => entry.attempt);
      if (Math.max(...attempts) !== attempt || new Set(attempts).size !== attempts.length) {
        wrong += 1;
        process.stderr.write(`${id}, chunk ${chunk}: accepted ${attempt}, begun ${attempts.join()}\n`);
      }
    }
  }
  const overlaps = entries().filter(({ what }) => what === 'overlap').length;
  times.sort((a, b) => a - b);
  const at = (part) => times[Math.min(times.length - 1, Math.ceil(times.length * part) - 1)];
  const line = `p50 ${at(0.5)} ms, p90 ${at(0.9)} ms, p99 ${at(0.99)} ms, max ${times.at(-1)} ms from the kill to the next chunk`;
  process.stdout.write(`${kills} kills, ${ids.length} jobs of ${CHUNKS} chunks: ${line}; ${wrong} wrong, ${overlaps} overlaps\n`);
  if (wrong + overlaps > 0) process.exitCode = 1;
} finally {
  for (const child of started) child.kill('SIGKILL');
  rmSync(folder, { recursive: true, force: true });
}
