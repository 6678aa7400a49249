/** A small disk in memory that can be filled and emptied. Mounting it takes root; without, there is none. */
import { spawnSync } from 'node:child_process';
import { closeSync, mkdirSync, openSync, rmSync, writeSync } from 'node:fs';
import { join } from 'node:path';

export class Disk {
  #ballast;

  /** Undefined when it can't be had. */
  static mount(folder, megabytes) {
    mkdirSync(folder, { recursive: true });
    if (process.platform !== 'linux' || process.getuid() !== 0) return undefined;
    const { status } = spawnSync('mount', ['-t', 'tmpfs', '-o', `size=${megabytes}m,mode=755`, 'framewright-chaos', folder], { stdio: 'ignore' });
    return status === 0 ? new Disk(folder) : undefined;
  }

  constructor(folder) {
    this.folder = folder;
    this.#ballast = join(folder, 'ballast');
  }

  /** Takes all the room there is. */
  fill() {
    const file = openSync(this.#ballast, 'a');
    try {
      for (const size of [1 << 20, 4096, 1]) {
        const block = Buffer.alloc(size);
        try {
          for (;;) writeSync(file, block);
        } catch (error) {
          if (error.code !== 'ENOSPC') throw error;
        }
      }
    } finally {
      closeSync(file);
    }
  }

  /** Gives it back. */
  empty() {
    rmSync(this.#ballast, { force: true });
  }

  unmount() {
    spawnSync('umount', ['-l', this.folder], { stdio: 'ignore' });
  }
}
