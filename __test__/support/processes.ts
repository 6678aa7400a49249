/** Processes of this machine, as the kernel tells of them. */
import { readFileSync } from 'node:fs';
import { vi } from 'vitest';

/** Whether a process still runs. A zombie does not: it only waits to be reaped. */
export function isAlive(pid: number): boolean {
  let stat: string;
  try {
    stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
  } catch {
    return false;
  }
  const state = stat.slice(stat.lastIndexOf(')') + 2, stat.lastIndexOf(')') + 3);
  return state !== 'Z' && state !== 'X';
}

/** Waits, not for long, until none of these processes runs any more; fails with those that do, and ends them. */
export async function gone(pids: number[]): Promise<void> {
  try {
    await vi.waitFor(
      () => {
        const left = pids.filter(isAlive);
        if (left.length > 0) throw new Error(`${left.length} of ${pids.length} processes still run: ${left.join(', ')}`);
      },
      { timeout: 2000, interval: 5 },
    );
  } catch (error) {
    for (const pid of pids) if (isAlive(pid)) process.kill(pid, 'SIGKILL');
    throw error;
  }
}
