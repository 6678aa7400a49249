/**
 * A number that every process raises by reading a record and saving it with the version it has seen. A store that takes
 * a stale version loses an update, and the number ends below the count of saves that were acknowledged.
 */
import { setTimeout as sleep } from 'node:timers/promises';

export const COUNTER = 'counter';

/** Makes the record, unless it is there. */
export async function makeCounter(repository) {
  if (await repository.get(COUNTER)) return;
  const metadata = { totalFrames: 1, fps: 1, width: 1, height: 1, duration: 1 };
  const spec = { id: COUNTER, metadata, chunks: [], mergeCommand: '' };
  const now = Date.now();
  // A record that has ended: nobody runs it.
  await repository.save({ id: COUNTER, spec, state: 'cancelled', progress: 0, totalChunks: 0, completedChunks: 0, createdAt: now, updatedAt: now, meta: { count: 0 } });
}

/** Counts until aborted. */
export async function count(repository, history, random, signal) {
  while (!signal.aborted) {
    try {
      await sleep(random.between(20, 150), undefined, { signal });
    } catch {
      return;
    }
    try {
      const record = await repository.get(COUNTER);
      if (!record) continue;
      const before = record.meta.count;
      history.add('counting', { count: before + 1 });
      try {
        await repository.save({ ...record, meta: { ...record.meta, count: before + 1 } });
        history.add('counted', { count: before + 1 });
      } catch (error) {
        history.add('not counted', { count: before + 1, code: error.code });
      }
    } catch (error) {
      // Not even read: the store is away.
      if (!['STORE_UNAVAILABLE', 'STORE_FULL'].includes(error.code)) throw error;
    }
  }
}
