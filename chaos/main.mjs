// npm run chaos: worker processes on one store, faults drawn from a seed, and a judgement of what is left.
// node chaos/main.mjs --store sqlite|file|postgres|mysql|URL [--seed N] [--minutes M] [--kills K] [--keep] [--folder DIR]
import { chmodSync, cpSync, lstatSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { check, groupBy } from './check.mjs';
import { COUNTER } from './count.mjs';
import { Disk } from './disk.mjs';
import { Faults } from './faults.mjs';
import { History, LedgerTail, readLedger } from './history.mjs';
import { Proxy } from './proxy.mjs';
import { Random } from './random.mjs';
import { Mysql, Postgres } from './servers.mjs';
import { Workers } from './workers.mjs';

const USAGE = 'npm run chaos -- --store sqlite|file|postgres|mysql|URL [--seed N] [--minutes M] [--kills K] [--keep] [--folder DIR]';

function fail(message) {
  console.error(`${message}\n${USAGE}`);
  process.exit(2);
}

function given() {
  try {
    return parseArgs({
      options: {
        store: { type: 'string', default: 'sqlite' },
        seed: { type: 'string', default: String(Date.now() % 1_000_000) },
        /** How long faults go on; without it, until the kills are done. */
        minutes: { type: 'string' },
        /** Default 20, or no end when there is a time. */
        kills: { type: 'string' },
        /** Leave the folder of the run also when all is well. */
        keep: { type: 'boolean', default: false },
        /** Where the folder of the run is made. */
        folder: { type: 'string', default: tmpdir() },
      },
    }).values;
  } catch (error) {
    return fail(error.message);
  }
}

const options = given();
const seed = Number(options.seed);
const minutes = options.minutes === undefined ? undefined : Number(options.minutes);
const kills = options.kills === undefined ? (minutes === undefined ? 20 : Infinity) : Number(options.kills);
if (!Number.isInteger(seed) || !(minutes === undefined || minutes > 0) || !(kills >= 0)) fail('--seed, --minutes and --kills are numbers');
const leaseMs = 1500;
/** Jobs have to end within so long once nothing goes wrong any more. */
const DRAIN_MS = 60_000;

const folder = mkdtempSync(join(options.folder, 'framewright-chaos-'));
// Its server, another user, passes through.
chmodSync(folder, 0o711);
const history = new History(join(folder, 'history.jsonl'));
const ledgerFile = join(folder, 'ledger');
const random = new Random(seed);
mkdirSync(join(folder, 'outputs'));
const ledger = new LedgerTail(ledgerFile);

/** The store of the run: its URL for a slot, its server, its disk. */
async function store() {
  const kind = options.store;
  if (kind === 'sqlite' || kind === 'file') {
    const place = join(folder, 'store');
    const disk = Disk.mount(place, 64);
    return { single: kind === 'file', url: () => (kind === 'sqlite' ? `sqlite:${place}/jobs.db` : `file:${place}/jobs`), disk };
  }
  const Kind = { postgres: Postgres, mysql: Mysql }[kind];
  if (Kind) {
    if (!Kind.isInstalled) fail(`There are no programs of a ${kind} server here`);
    const place = join(folder, 'store');
    const disk = Disk.mount(place, kind === 'postgres' ? 160 : 256);
    const server = new Kind(join(place, kind));
    await server.begin(join(folder, 'server.log'));
    return { single: false, url: (port) => server.url(port), port: server.port, server, disk };
  }
  if (kind.startsWith('file:')) return { single: true, url: () => kind };
  if (kind.startsWith('sqlite:')) return { single: false, url: () => kind };
  if (/^(postgres(ql)?|mysql|mariadb):\/\//.test(kind)) {
    const url = new URL(kind);
    if (!['127.0.0.1', 'localhost'].includes(url.hostname)) return { single: false, url: () => kind };
    const through = (port) => Object.assign(new URL(kind), { hostname: '127.0.0.1', port: String(port) }).href;
    return { single: false, url: through, port: Number(url.port || (kind.startsWith('postgres') ? 5432 : 3306)) };
  }
  return fail(`What is the store ${kind}?`);
}

/** Processes that carry the name of an owner of this run. */
function orphans() {
  const owners = new Set(readLedger(ledgerFile).map((line) => line.owner));
  const found = [];
  for (const name of readdirSync('/proc')) {
    if (!/^\d+$/.test(name)) continue;
    try {
      const environment = readFileSync(`/proc/${name}/environ`, 'utf8').split('\0');
      const value = (key) => environment.find((entry) => entry.startsWith(`${key}=`))?.slice(key.length + 1);
      if (!owners.has(value('FRAMEWRIGHT_OWNER'))) continue;
      // A zombie has ended; who should bury it is not our matter.
      if (/^State:\s+Z/m.test(readFileSync(`/proc/${name}/status`, 'utf8'))) continue;
      found.push({ pid: Number(name), owner: value('FRAMEWRIGHT_OWNER'), job: value('FRAMEWRIGHT_JOB_ID') });
    } catch {
      // It has gone meanwhile, or is none of ours.
    }
  }
  return found;
}

const begun = performance.now();
const since = () => `${((performance.now() - begun) / 1000).toFixed(1)} s`;
const proxies = new Map();
let workers;
let where;

/** Files and folders, but not what filled the disk. */
const isEvidence = (path) => !path.endsWith('ballast') && ['isFile', 'isDirectory'].some((kind) => lstatSync(path)[kind]());

/** Leaves nothing that runs. */
function clear() {
  workers?.destroy();
  for (const proxy of proxies.values()) proxy.close();
  ledger.close();
  for (const { pid } of orphans()) process.kill(pid, 'SIGKILL');
  where?.server?.child?.kill('SIGKILL');
  if (where?.disk) {
    // What was on it is evidence.
    if (failed) cpSync(join(folder, 'store'), join(folder, 'store-at-the-end'), { recursive: true, filter: isEvidence });
    where.disk.unmount();
  }
  if (!failed && !options.keep) rmSync(folder, { recursive: true, force: true });
}

let failed = true;
for (const signal of ['SIGINT', 'SIGTERM']) {
  process.once(signal, () => {
    clear();
    process.exit(130);
  });
}

try {
  where = await store();
  const settings = {
    history: history.file,
    ledger: ledgerFile,
    outputs: join(folder, 'outputs'),
    script: join(import.meta.dirname, 'chunk.sh'),
    leaseMs,
    seed,
    pause: '0.05',
    chunks: [6, 16],
    jobsAtOnce: where.single ? 3 : 6,
  };
  history.add('run', { store: options.store, seed, minutes, kills });
  workers = new Workers(history, settings, join(folder, 'processes.log'));
  const add = async (name, roles) => {
    const proxy = where.port === undefined ? undefined : await Proxy.before(where.port);
    const slot = workers.add(name, roles, where.url(proxy?.port));
    if (proxy) proxies.set(slot, proxy);
    return slot;
  };
  const submitter = await add('submitter', where.single ? ['work', 'submit'] : ['submit']);
  if (!where.single) for (const name of ['a', 'b', 'c']) await add(name, ['work']);

  const faults = new Faults({ history, workers, ledger, random, leaseMs, proxies, server: where.server, disk: where.disk, single: where.single, short: minutes === undefined });
  const until = minutes === undefined ? Infinity : Date.now() + minutes * 60_000;
  const pauseMs = minutes === undefined ? [50, 350] : [300, 2000];
  await faults.go({ kills, until, pauseMs });
  console.log(`${since()}: faults are over: ${JSON.stringify(faults.counts)}`);

  const drained = await Promise.race([workers.drain(submitter).then(() => true), sleep(DRAIN_MS, false, { ref: false })]);
  if (!drained) {
    const last = new Map(history.read().filter((record) => record.kind === 'seen').map((record) => [record.id, record]));
    for (const [id, states] of last) if (!['completed', 'failed', 'cancelled'].includes(states.state)) history.add('stuck', { id, states });
    if (last.size === 0) history.add('stuck', { id: 'everything' });
  }
  console.log(`${since()}: all jobs ${drained ? 'have ended' : 'should have ended'}`);
  const late = setTimeout(() => workers.destroy(), 15_000);
  await workers.finish();
  clearTimeout(late);
  for (const orphan of orphans()) history.add('orphan', orphan);
  await workers.audit(where.url(where.port));

  const records = history.read();
  const violations = check(records, readLedger(ledgerFile), { leaseMs, counter: COUNTER });
  const count = (kind) => records.filter((record) => record.kind === kind).length;
  const completed = records.filter((record) => record.kind === 'event' && record.event.type === 'chunk.completed').length;
  const sorted = [...faults.recoveries].sort((a, b) => a - b);
  const quantile = (q) => `${Math.round(sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))] ?? 0)} ms`;
  console.log(
    `${since()}: ${count('submitted')} jobs acknowledged, ${completed} chunks completed, ${count('event')} events kept; ` +
      `a killed worker's job goes on after ${quantile(0.5)} (median), ${quantile(0.99)} (99 %), of ${sorted.length}`,
  );
  failed = violations.length > 0;
  for (const [rule, found] of groupBy(violations, (one) => one.rule)) {
    console.log(`✗ ${rule}: ${found.length}`);
    for (const { what, evidence } of found.slice(0, 5)) console.log(`    ${what}${evidence === undefined ? '' : ` ${JSON.stringify(evidence)}`}`);
  }
} finally {
  clear();
}
if (failed) {
  const repeat = [`--store ${options.store}`, `--seed ${seed}`, ...(minutes === undefined ? [] : [`--minutes ${minutes}`]), ...(Number.isFinite(kills) ? [`--kills ${kills}`] : [])];
  console.log(`The history is in ${relative(process.cwd(), folder).startsWith('..') ? folder : relative(process.cwd(), folder)}. Again: npm run chaos -- ${repeat.join(' ')}`);
  process.exitCode = 1;
} else {
  console.log(`✓ seed ${seed} on ${options.store}: nothing was lost, nothing happened twice`);
}
