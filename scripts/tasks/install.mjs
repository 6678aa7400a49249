// Installs the development dependencies when they are missing or when the lock file has changed since.
import { createHash } from 'node:crypto';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { npm, root, step } from './steps.mjs';

const stamp = join(root, 'node_modules', '.installed-lock');

function lockHash() {
  return createHash('sha256').update(readFileSync(join(root, 'package-lock.json'))).digest('hex');
}

function isInstalled() {
  return existsSync(stamp) && readFileSync(stamp, 'utf8') === lockHash();
}

export async function install() {
  if (isInstalled()) return;
  await step('install (npm ci)', () => {
    npm(['ci', '--no-audit', '--no-fund', '--loglevel=error']);
    writeFileSync(stamp, lockHash());
  });
}
