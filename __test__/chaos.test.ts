/**
 * Short runs of the chaos harness (chaos/main.mjs), one of 20 kills for each durable store: workers are killed in mid-chunk and
 * stopped beyond their lease, servers crash, disks are full, connections hang. Longer ones: npm run chaos.
 */
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';

const root = join(import.meta.dirname, '..');

function chaos(...args: string[]): Promise<{ status: number | null; output: string }> {
  return new Promise((resolve, reject) => {
    const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !/^(NODE_|VITEST|FORCE_COLOR)/.test(name)));
    const child = spawn(process.execPath, ['chaos/main.mjs', ...args], { cwd: root, env, stdio: ['ignore', 'pipe', 'pipe'] });
    let output = '';
    for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', (text: string) => (output += text));
    child.on('error', reject);
    child.on('close', (status) => resolve({ status, output }));
  });
}

describe('20 kills and other faults lose nothing, and nothing happens twice', () => {
  test.for(['sqlite', 'file', 'postgres', 'mysql'])('[F152] [F153] on %s', { timeout: 120_000 }, async (store) => {
    const { status, output } = await chaos('--store', store, '--seed', '20', '--kills', '20');
    // A failure says what was broken, where the history is, and how to run it again.
    expect(output).toContain(`✓ seed 20 on ${store}: nothing was lost, nothing happened twice`);
    expect(status).toBe(0);
  });
});
