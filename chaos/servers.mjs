/** Database servers of the harness's own, in a folder of the run, as an unprivileged user, on a port that is free. */
import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { chownSync, existsSync, mkdirSync, openSync, readdirSync, writeFileSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

/** Where a program is, also where Debian hides PostgreSQL's. */
function find(...names) {
  const folders = (process.env.PATH ?? '').split(':').concat('/usr/sbin');
  const versions = existsSync('/usr/lib/postgresql') ? readdirSync('/usr/lib/postgresql').map((version) => `/usr/lib/postgresql/${version}/bin`) : [];
  // The real programs first: wrappers of a distribution may know only the shared server.
  for (const name of names) for (const folder of [...versions, ...folders]) if (existsSync(join(folder, name))) return join(folder, name);
  return undefined;
}

/** The first of these users that exists; servers refuse to run as root. */
function unprivileged(...names) {
  if (process.getuid() !== 0) return {};
  for (const name of [...names, 'nobody']) {
    const number = (flag) => spawnSync('id', [flag, name], { encoding: 'utf8' });
    const [user, group] = [number('-u'), number('-g')];
    if (user.status === 0 && group.status === 0) return { uid: Number(user.stdout), gid: Number(group.stdout) };
  }
  throw new Error('a database server needs a user other than root');
}

async function freePort() {
  const server = createServer();
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  return port;
}

/** What both servers do alike. */
class Server {
  child;

  constructor(folder, users) {
    this.folder = folder;
    this.data = join(folder, 'data');
    this.identity = unprivileged(...users);
    mkdirSync(this.data, { recursive: true, mode: 0o700 });
    if (this.identity.uid !== undefined) for (const path of [folder, this.data]) chownSync(path, this.identity.uid, this.identity.gid);
  }

  async begin(log) {
    this.log = openSync(log, 'a');
    this.port = await freePort();
    this.initialise();
    await this.start();
    this.prepare();
  }

  /** Whether the server is there. */
  get isUp() {
    return this.child !== undefined && this.child.exitCode === null && this.child.signalCode === null;
  }

  /** Starts it; resolves when it takes connections. */
  async start() {
    for (;;) {
      const [program, ...args] = this.command();
      const child = spawn(program, args, { ...this.identity, cwd: this.folder, stdio: ['ignore', this.log, this.log] });
      child.on('error', () => undefined);
      this.child = child;
      while (this.isUp) {
        if (await this.answers()) return;
        await sleep(20);
      }
      // What it had before still holds its lock, or the disk was just emptied: it is tried again.
      await sleep(100);
    }
  }

  /** Whether it says something, or waits for the client to, in a way that only a ready server does. */
  answers() {
    return new Promise((resolve) => {
      const socket = connect({ port: this.port, host: '127.0.0.1' });
      const end = (answer) => {
        socket.destroy();
        resolve(answer);
      };
      socket.setTimeout(1000, () => end(false));
      socket.on('error', () => end(false));
      socket.on('connect', () => this.greet(socket));
      socket.on('data', (data) => end(this.isReady(data)));
      socket.on('close', () => end(false));
    });
  }

  /** Ends it without a word, as a crash of the machine would, but for what is on the disk. */
  async crash() {
    if (!this.isUp) return;
    const ended = new Promise((resolve) => this.child.once('exit', resolve));
    this.child.kill('SIGKILL');
    await ended;
  }
}

export class Postgres extends Server {
  static #initdb = find('initdb');
  static #program = find('postgres');
  static isInstalled = Postgres.#initdb !== undefined && Postgres.#program !== undefined;

  constructor(folder) {
    super(folder, ['postgres']);
  }

  initialise() {
    const args = ['--pgdata', this.data, '--username', 'postgres', '--auth', 'trust', '--encoding', 'UTF8', '--locale', 'C', '--no-sync', '--wal-segsize', '1'];
    execFileSync(Postgres.#initdb, args, { ...this.identity, cwd: this.folder, stdio: ['ignore', this.log, this.log] });
  }

  prepare() {}

  command() {
    const settings = { port: this.port, listen_addresses: '127.0.0.1', unix_socket_directories: '', max_wal_size: '16MB', min_wal_size: '2MB', max_connections: 60, shared_buffers: '16MB' };
    return [Postgres.#program, '-D', this.data, ...Object.entries(settings).flatMap(([name, value]) => ['-c', `${name}=${value}`])];
  }

  /** A start-up message of protocol 3.0 for the user and database `postgres`. */
  greet(socket) {
    const words = Buffer.from('user\0postgres\0database\0postgres\0\0');
    const head = Buffer.alloc(8);
    head.writeInt32BE(words.length + 8, 0);
    head.writeInt32BE(196_608, 4);
    socket.write(Buffer.concat([head, words]));
  }

  /** 'R': it authenticates; 'E': it is starting up or recovering. */
  isReady(data) {
    return data[0] === 0x52;
  }

  url(port) {
    return `postgres://postgres@127.0.0.1:${port}/postgres?max=4`;
  }
}

export class Mysql extends Server {
  static #install = find('mariadb-install-db', 'mysql_install_db');
  static #program = find('mariadbd', 'mysqld');
  static #client = find('mariadb', 'mysql');
  static isInstalled = Mysql.#install !== undefined && Mysql.#program !== undefined && Mysql.#client !== undefined;

  constructor(folder) {
    super(folder, ['mysql']);
  }

  #own() {
    return ['--no-defaults', `--datadir=${this.data}`, '--innodb-log-file-size=8M', '--innodb-buffer-pool-size=32M'];
  }

  initialise() {
    const args = [...this.#own(), '--auth-root-authentication-method=normal', '--skip-test-db'];
    execFileSync(Mysql.#install, args, { ...this.identity, cwd: this.folder, stdio: ['ignore', this.log, this.log] });
  }

  prepare() {
    const file = join(this.folder, 'prepare.sql');
    writeFileSync(file, 'CREATE DATABASE chaos;');
    execFileSync(Mysql.#client, ['--no-defaults', '--protocol=tcp', '--host=127.0.0.1', `--port=${this.port}`, '--user=root', '--execute', `source ${file}`]);
  }

  command() {
    return [Mysql.#program, ...this.#own(), `--port=${this.port}`, '--bind-address=127.0.0.1', `--socket=${join(this.folder, 'socket')}`, '--skip-name-resolve'];
  }

  greet() {}

  /** The greeting of protocol 10 comes by itself; anything else is an error. */
  isReady(data) {
    return data[4] === 10;
  }

  url(port) {
    return `mysql://root@127.0.0.1:${port}/chaos?max=4`;
  }
}
