// The database servers that the tests talk to: used where they run, started where they are installed, and installed and
// run in a folder of this checkout where there are none. What can't be had fails here, with a word on what to do.
import { spawnSync } from 'node:child_process';
import { chownSync, existsSync, mkdirSync, readdirSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { StepFailed, root, step, succeeds } from './steps.mjs';

const folder = join(root, 'target', 'test-services');
const isRoot = process.getuid?.() === 0;

function answers(port) {
  return new Promise((resolve) => {
    const socket = connect({ port, host: '127.0.0.1', timeout: 1000 });
    const end = (open) => {
      socket.destroy();
      resolve(open);
    };
    socket.once('connect', () => end(true));
    socket.once('error', () => end(false));
    socket.once('timeout', () => end(false));
  });
}

async function waitFor(port, name) {
  for (const until = performance.now() + 60_000; performance.now() < until; ) {
    if (await answers(port)) return;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  throw new StepFailed(`${name} was started, but does not answer on port ${port}`);
}

/** Runs a program as an unprivileged user: database servers refuse to run as root. */
function as(user, program, args) {
  const [command, ...rest] = isRoot ? ['setpriv', `--reuid=${user}`, `--regid=${user}`, '--clear-groups', program, ...args] : [program, ...args];
  const { status, stderr, error } = spawnSync(command, rest, { stdio: ['ignore', 'ignore', 'pipe'], encoding: 'utf8' });
  if (error || status !== 0) throw new StepFailed(`${program} failed: ${error?.message ?? stderr}`);
}

function installPackage(name) {
  if (!isRoot || !succeeds('apt-get', ['--version'])) return;
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' };
  spawnSync('apt-get', ['install', '-y', '--no-install-recommends', name], { stdio: 'inherit', env });
}

function home(name, user) {
  const path = join(folder, name);
  mkdirSync(path, { recursive: true });
  if (isRoot) {
    const id = (flag) => Number(spawnSync('id', [flag, user], { encoding: 'utf8' }).stdout);
    chownSync(path, id('-u'), id('-g'));
  }
  return path;
}

/** The newest folder of PostgreSQL's programs. */
function postgresPrograms() {
  const base = '/usr/lib/postgresql';
  const versions = existsSync(base) ? readdirSync(base).filter((version) => existsSync(join(base, version, 'bin', 'initdb'))) : [];
  const newest = versions.sort((a, b) => Number(b) - Number(a))[0];
  return newest && { version: newest, path: join(base, newest, 'bin') };
}

async function postgres() {
  if (process.env.FRAMEWRIGHT_TEST_POSTGRES || (await answers(5432))) return;
  const installed = postgresPrograms();
  // A cluster of the distribution's own that is merely stopped.
  if (installed && isRoot && succeeds('pg_ctlcluster', ['--skip-systemctl-redirect', installed.version, 'main', 'start'])) {
    await waitFor(5432, 'PostgreSQL');
    return;
  }
  if (!installed) installPackage('postgresql');
  const programs = postgresPrograms();
  if (!programs) throw new StepFailed('The tests need PostgreSQL: install it (Debian: apt-get install postgresql), or name a server in FRAMEWRIGHT_TEST_POSTGRES');
  const data = join(home('postgres', 'postgres'), 'data');
  if (!existsSync(join(data, 'PG_VERSION'))) as('postgres', join(programs.path, 'initdb'), ['-D', data, '-U', 'postgres', '-A', 'trust', '-E', 'UTF8']);
  const options = `-p 5432 -c listen_addresses=127.0.0.1 -c unix_socket_directories=`;
  as('postgres', join(programs.path, 'pg_ctl'), ['-D', data, '-w', '-l', join(folder, 'postgres', 'log'), '-o', options, 'start']);
  await waitFor(5432, 'PostgreSQL');
  succeeds(join(programs.path, 'createdb'), ['-h', '127.0.0.1', '-U', 'postgres', 'test']);
}

async function mysql() {
  if (process.env.FRAMEWRIGHT_TEST_MYSQL || (await answers(3306))) return;
  const daemon = '/usr/sbin/mariadbd';
  if (existsSync(daemon) && isRoot && existsSync('/var/lib/mysql/mysql')) {
    if (succeeds('start-stop-daemon', ['--start', '--oknodo', '--background', '--exec', daemon])) {
      await waitFor(3306, 'MariaDB');
      return;
    }
  }
  if (!existsSync(daemon)) installPackage('mariadb-server');
  if (!existsSync(daemon)) throw new StepFailed('The tests need MariaDB or MySQL: install it (Debian: apt-get install mariadb-server), or name a server in FRAMEWRIGHT_TEST_MYSQL');
  const data = join(home('mysql', 'mysql'), 'data');
  if (!existsSync(join(data, 'mysql'))) as('mysql', 'mariadb-install-db', [`--datadir=${data}`, '--auth-root-authentication-method=normal', '--skip-test-db']);
  const settings = ['--no-defaults', `--datadir=${data}`, '--port=3306', '--bind-address=127.0.0.1', `--socket=${join(folder, 'mysql', 'socket')}`];
  spawnSync('sh', ['-c', `${isRoot ? 'setpriv --reuid=mysql --regid=mysql --clear-groups ' : ''}${daemon} ${settings.join(' ')} > /dev/null 2>&1 &`], { stdio: 'ignore' });
  await waitFor(3306, 'MariaDB');
}

/** Has PostgreSQL and MariaDB answer. */
export async function startServices() {
  await step('services (PostgreSQL, MariaDB)', async () => {
    await postgres();
    await mysql();
  });
}
