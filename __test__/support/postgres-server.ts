/** A PostgreSQL server of a test's own, to be restarted and stopped. */
import { execFileSync, spawn, type ChildProcess } from 'node:child_process';
import { chownSync, existsSync, mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { createServer, type AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const VERSIONS = '/usr/lib/postgresql';

/** The path of one of its programs. */
function program(name: string): string {
  const versions = existsSync(VERSIONS) ? readdirSync(VERSIONS) : [];
  const found = versions.map((version) => join(VERSIONS, version, 'bin', name)).find((path) => existsSync(path));
  if (found === undefined) throw new Error(`This test starts a PostgreSQL server of its own, and there is no ${name} below ${VERSIONS}: apt-get install postgresql`);
  return found;
}

/** The user that it runs as: it refuses to be root. */
function owner(): { uid: number; gid: number } | undefined {
  if (process.getuid?.() !== 0) return undefined;
  const line = readFileSync('/etc/passwd', 'utf8').split('\n').find((entry) => /^(postgres|nobody):/.test(entry));
  const [, , uid, gid] = (line ?? 'nobody:x:65534:65534').split(':');
  return { uid: Number(uid), gid: Number(gid) };
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}

function childrenOf(pid: number): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .filter((name) => {
      try {
        const stat = readFileSync(`/proc/${name}/stat`, 'utf8');
        return Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1]) === pid;
      } catch {
        return false;
      }
    })
    .map(Number);
}

export class PostgresServer {
  #process: ChildProcess | undefined;
  #log = '';

  private constructor(
    readonly folder: string,
    readonly port: number,
  ) {}

  static async create(): Promise<PostgresServer> {
    const folder = mkdtempSync(join(tmpdir(), 'framewright-postgres-'));
    const user = owner();
    if (user) chownSync(folder, user.uid, user.gid);
    const server = new PostgresServer(folder, await freePort());
    execFileSync(program('initdb'), ['-D', join(folder, 'data'), '-U', 'postgres', '-A', 'trust', '--no-sync', '-E', 'UTF8', '--locale=C'], { cwd: folder, stdio: 'ignore', ...user });
    await server.start();
    return server;
  }

  get url(): string {
    return `postgres://postgres@127.0.0.1:${this.port}/postgres`;
  }

  /** Resolves once it takes connections. */
  async start(): Promise<void> {
    const args = ['-D', join(this.folder, 'data'), '-p', String(this.port), '-c', 'listen_addresses=127.0.0.1', '-c', `unix_socket_directories=${this.folder}`];
    const started = spawn(program('postgres'), args, { cwd: this.folder, stdio: ['ignore', 'ignore', 'pipe'], env: { LC_ALL: 'C' }, ...owner() });
    this.#process = started;
    this.#log = '';
    await new Promise<void>((resolve, reject) => {
      started.stderr.setEncoding('utf8').on('data', (text: string) => {
        this.#log += text;
        if (this.#log.includes('ready to accept connections')) resolve();
      });
      started.once('exit', (code) => reject(new Error(`PostgreSQL ended with ${String(code)}: ${this.#log}`)));
    });
  }

  /** Ends as after a crash: connections are cut, the log is replayed at the next start. */
  async crash(): Promise<void> {
    const ended = new Promise((resolve) => this.#process?.once('exit', resolve));
    this.#process?.kill('SIGQUIT');
    await ended;
  }

  /** SIGSTOP or SIGCONT to all of its processes. Connections stay open. */
  signal(signal: 'SIGSTOP' | 'SIGCONT'): void {
    const main = this.#process!.pid!;
    for (const pid of [main, ...childrenOf(main)]) {
      try {
        process.kill(pid, signal);
      } catch (error) {
        // One of its workers may have ended since it was listed.
        if (pid === main || (error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
      }
    }
  }

  async remove(): Promise<void> {
    if (this.#process?.exitCode === null && this.#process.signalCode === null) {
      this.signal('SIGCONT');
      await this.crash();
    }
    rmSync(this.folder, { recursive: true, force: true });
  }
}
