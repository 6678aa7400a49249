/**
 * A process of a run: a worker, the submitter, both (a store of files takes one process), or the auditor that reads
 * everything at the end. It knows framewright by the package's name only.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { JobExecutor, JobManager, LocalWorkerAdapter, openRepository } from 'framewright';
import { audit } from './audit.mjs';
import { count } from './count.mjs';
import { History } from './history.mjs';
import { Random } from './random.mjs';
import { Submitter } from './submitter.mjs';

const settings = JSON.parse(process.argv[2]);
const { url, roles, leaseMs, seed } = settings;
const history = new History(settings.history);
const finishing = new AbortController();

/** The harness is gone. */
const alone = () => process.exit(3);
process.on('disconnect', alone);

/** The store may be away at the moment; a worker under a supervisor would come back as well. */
async function opened() {
  for (;;) {
    try {
      return await openRepository(url);
    } catch (error) {
      if (!['STORE_UNAVAILABLE', 'STORE_FULL'].includes(error.code)) throw error;
      history.add('not opened', { code: error.code, message: error.message });
      await sleep(100);
    }
  }
}

const repository = await opened();
history.add('opened', { roles });
const ends = [];
let submitted = Promise.resolve();

if (roles.includes('work')) {
  const manager = new JobManager(repository, new JobExecutor(new LocalWorkerAdapter({ killGraceMs: 500 })), { leaseMs, maxConcurrentJobs: 4 });
  manager.on('event', (event) => {
    if (!/progress$/.test(event.type)) history.add('heard', { event });
  });
  const running = manager.run({ signal: finishing.signal });
  ends.push(async () => {
    await running;
    await manager.close({ finishMs: 0, abortMs: 2000 });
  });
}
if (roles.includes('submit')) {
  const manager = new JobManager(repository, undefined, { leaseMs });
  const submitter = new Submitter(manager, repository, history, settings);
  submitted = submitter.run();
  process.on('message', (message) => message === 'drain' && submitter.drain());
  ends.push(() => manager.close());
}
if (roles.includes('audit')) {
  await audit(repository, history, leaseMs);
  await repository.close();
  process.off('disconnect', alone);
  process.disconnect();
} else {
  const counted = count(repository, history, new Random(seed + process.pid), finishing.signal);
  process.on('message', (message) => message === 'finish' && finishing.abort());
  await submitted;
  if (roles.includes('submit')) process.send('drained');
  if (!finishing.signal.aborted) await new Promise((resolve) => finishing.signal.addEventListener('abort', resolve));
  await counted;
  for (const end of ends) await end();
  await repository.close();
  process.off('disconnect', alone);
  process.disconnect();
}
