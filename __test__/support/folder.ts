import { existsSync, mkdtempSync, readFileSync, readdirSync, realpathSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterManagers } from './managers.js';

/** A temporary folder that is removed when its test has ended. */
export class Folder {
  readonly path = realpathSync(mkdtempSync(join(tmpdir(), 'framewright-test-')));

  constructor() {
    afterManagers(() => rmSync(this.path, { recursive: true, force: true }));
  }

  file(name: string): string {
    return join(this.path, name);
  }

  has(name: string): boolean {
    return existsSync(this.file(name));
  }

  read(name: string): string {
    return readFileSync(this.file(name), 'utf8');
  }

  /** The lines of a file that processes append to; none while it is not there. */
  lines(name: string): string[] {
    return this.has(name) ? this.read(name).split('\n').filter((line) => line !== '') : [];
  }

  write(name: string, text: string | Uint8Array): string {
    writeFileSync(this.file(name), text);
    return this.file(name);
  }

  /** The names in it, sorted. */
  names(): string[] {
    return readdirSync(this.path).sort();
  }
}
