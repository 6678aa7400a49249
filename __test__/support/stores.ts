/** Durable stores that last as long as a test. `FRAMEWRIGHT_TEST_POSTGRES` and `FRAMEWRIGHT_TEST_MYSQL` name other servers than those on this host's usual ports. */
import { execFileSync } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { Folder } from './folder.js';
import { afterManagers } from './managers.js';

const POSTGRES = process.env['FRAMEWRIGHT_TEST_POSTGRES'] ?? 'postgres://postgres@127.0.0.1:5432/test';
const MYSQL = process.env['FRAMEWRIGHT_TEST_MYSQL'] ?? 'mysql://root@127.0.0.1:3306';

/** Has MySQL or MariaDB do something; gives what it says. */
export function mysql(statement: string): string {
  const { hostname, port, username, password } = new URL(MYSQL);
  const login = [`-h${hostname}`, `-P${port || '3306'}`, `-u${decodeURIComponent(username)}`];
  return execFileSync('mysql', [...login, '--protocol=tcp', '-N', '-B', '-e', statement], {
    encoding: 'utf8',
    env: { ...process.env, ...(password === '' ? {} : { MYSQL_PWD: decodeURIComponent(password) }) },
  }).trim();
}

/** Has PostgreSQL do something; gives what it says. */
export function psql(statement: string): string {
  return execFileSync('psql', ['-XqAt', POSTGRES, '-c', 'set client_min_messages = error', '-c', statement], { encoding: 'utf8' }).trim();
}

export interface Place {
  kind: string;
  /** Several processes at a time may have it open. */
  shared: boolean;
  /** The URL of a new, empty store. */
  create: () => string;
}

const file: Place = { kind: 'files', shared: false, create: () => `file:${new Folder().file('jobs')}` };
const sqlite: Place = { kind: 'SQLite', shared: true, create: () => `sqlite:${new Folder().file('jobs.db')}` };
const postgres: Place = {
  kind: 'PostgreSQL',
  shared: true,
  create: () => {
    const schema = `test_${randomUUID().replaceAll('-', '')}`;
    afterManagers(() => psql(`drop schema if exists ${schema} cascade`));
    return `${POSTGRES}${POSTGRES.includes('?') ? '&' : '?'}schema=${schema}&max=4`;
  },
};

/** MySQL or MariaDB. */
export const mariadb: Place = {
  kind: 'MySQL',
  shared: true,
  create: () => {
    const database = `test_${randomUUID().replaceAll('-', '')}`;
    mysql(`create database ${database}`);
    afterManagers(() => mysql(`drop database if exists ${database}`));
    const url = new URL(MYSQL);
    url.pathname = database;
    url.searchParams.set('max', '4');
    return url.href;
  },
};

/** Every durable store. */
export const durable: Place[] = [file, sqlite, postgres];
/** Those that several processes may share. */
export const shared: Place[] = [sqlite, postgres];
