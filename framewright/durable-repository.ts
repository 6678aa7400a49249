/** Repositories that outlive the process: a file of SQLite, a directory, PostgreSQL, MySQL. */
import type { DurableStore, LongLists, StoredPage } from './binding.js';
import { checkId, integer, shown } from './arguments.js';
import { invalid, native, settled } from './errors.js';
import { InMemoryJobRepository, toJson } from './memory-repository.js';
import binding from './native.js';
import { readStatus } from './status.js';
import type { JobRepository, JobState, JobStatus, JobStatusInput } from './types.js';

/** Jobs per slice of a listing. */
const SLICE = 100;

const stores = new WeakMap<object, DurableStore>();
const warners = new WeakMap<object, Set<(message: string) => void>>();

/** The native store of a repository of ours. */
export function durableOf(repository: object): DurableStore | undefined {
  return stores.get(repository);
}

/** Who works on a job of a durable repository; undefined: nobody, or somebody who is gone. */
export async function workingOn(repository: object, id: string): Promise<{ owner: string; host: string; pid: number } | undefined> {
  const store = stores.get(repository);
  return (store && (await settled(store.working(id)))) ?? undefined;
}

/** Has `warn` hear of damaged records that a listing of this repository leaves out. */
export function onDamage(repository: object, warn: (message: string) => void): void {
  const known = warners.get(repository) ?? new Set();
  known.add(warn);
  warners.set(repository, known);
}

/** All jobs after a place, read in slices. */
export async function listStored(store: DurableStore, repository: object, states: JobState[], after: number, limit: number): Promise<JobStatus[]> {
  const jobs: JobStatus[] = [];
  let next = after;
  for (;;) {
    const page: StoredPage = await settled(store.list(states, next, Math.min(SLICE, limit - jobs.length)));
    for (const status of JSON.parse(page.jobs) as { id: string; $long?: unknown }[]) {
      const whole = status.$long ? await readStored(store, status.id) : (status as unknown as JobStatus);
      if (whole) jobs.push(whole);
    }
    for (const what of page.damaged) for (const warn of warners.get(repository) ?? []) warn(`A damaged job was left out of the listing: ${what}`);
    next = page.next;
    if (next < 0 || jobs.length >= limit) return jobs;
  }
}

/** The status of a job of a store. */
export async function readStored(store: DurableStore, id: string): Promise<JobStatus | undefined> {
  const found = await settled(store.get(id));
  return found ? statusOf(found) : undefined;
}

/** A status as it came from a store. */
export function statusOf(found: { status: string; long(): LongLists | null }): JobStatus {
  return readStatus(found.status, () => found.long());
}

/** What all durable repositories do alike. */
abstract class DurableJobRepository implements JobRepository {
  get #store(): DurableStore {
    const store = stores.get(this);
    if (!store) throw new TypeError('Open it with its own open, connect or openRepository');
    return store;
  }

  /** Keeps a status. See {@link JobRepository.save} for versions. */
  async save(job: JobStatusInput): Promise<void> {
    const json = toJson(job, 'job status');
    await settled(this.#store.save(json));
  }

  /**
   * The status, or undefined when there is no such job.
   *
   * @throws FramewrightError STORE_CORRUPT when its record is damaged, until it is deleted; STORE_UNAVAILABLE.
   */
  async get(id: string): Promise<JobStatus | undefined> {
    return readStored(this.#store, checkId(id));
  }

  /** All jobs, in order of arrival. Damaged ones are left out, which a manager on this repository is warned of. */
  async list(): Promise<JobStatus[]> {
    return listStored(this.#store, this, [], 0, Infinity);
  }

  /** Removes a job, whoever runs it; an unknown id changes nothing. */
  async delete(id: string): Promise<void> {
    await settled(this.#store.delete(checkId(id)));
  }

  /** Ends all connections. Managers on it are to be closed before. */
  async close(): Promise<void> {
    await settled(this.#store.close());
  }
}

/** Parameters of URLs: ours, and those that the drivers know. They would ignore others, and what was meant with them. */
const TLS_PARAMETERS = ['sslmode', 'ssl-mode', 'ssl-ca', 'sslcert', 'ssl-cert', 'sslkey', 'ssl-key'];
const POSTGRES_PARAMETERS = [
  'schema', 'max', ...TLS_PARAMETERS, 'sslrootcert', 'ssl-root-cert', 'host', 'hostaddr', 'port', 'dbname', 'user', 'password', 'application_name',
  'options', 'statement-cache-capacity',
];
const MYSQL_PARAMETERS = ['max', ...TLS_PARAMETERS, 'sslca', 'charset', 'collation', 'socket', 'timezone', 'time-zone', 'statement-cache-capacity'];

/** A server's URL for its driver, and what else it says; 0 and null: nothing. */
interface ServerUrl {
  url: string;
  max: number;
  schema: string | null;
}

/** Reads a URL of a server. What is wrong is told without it: it may have a password. */
function readServerUrl(value: unknown, known: readonly string[]): ServerUrl {
  const url = checkText(value, 'url');
  if (!URL.canParse(url)) throw invalid('url', 'is not a URL: scheme://user:password@host:port/database, with special characters percent-encoded');
  const at = url.indexOf('?');
  const parameters = new URLSearchParams(at < 0 ? '' : url.slice(at + 1));
  onlyThese(parameters, known);
  const max = parameters.get('max');
  const schema = parameters.get('schema');
  if (max !== null && !/^[1-9]\d{0,3}$/.test(max)) throw invalid('url', `has a parameter max that is not a positive integer: ${shown(max)}`);
  parameters.delete('max');
  parameters.delete('schema');
  const rest = parameters.toString();
  return { url: (at < 0 ? url : url.slice(0, at)) + (rest === '' ? '' : `?${rest}`), max: Number(max ?? 0), schema };
}

function made<T extends DurableJobRepository>(repository: T, store: DurableStore): T {
  stores.set(repository, store);
  return repository;
}

/** A path or URL that a user gave. */
function checkText(value: unknown, name: string): string {
  if (typeof value !== 'string' || value === '') throw invalid(name, `must be a string that is not empty, got ${shown(value)}`);
  if (value.includes('\0')) throw invalid(name, 'must not contain a NUL character');
  return value;
}

/**
 * Keeps jobs in a directory, one journal each. One process at a time; several managers in it. A directory of
 * `<id>.json` status files is taken over.
 */
export class FileJobRepository extends DurableJobRepository {
  constructor(directory: string) {
    super();
    made(this, native(() => binding.openFile(checkText(directory, 'directory'))));
  }
}

/** Keeps jobs in a SQLite database, which several processes of one host may share. */
export class SqliteJobRepository extends DurableJobRepository {
  /**
   * Opens a database, made when it is missing.
   *
   * @param options `synchronous`: 'full' (default) survives the loss of power, 'normal' only the death of the process.
   * @throws FramewrightError STORE_UNAVAILABLE, STORE_CORRUPT.
   */
  static async open(path: string, options: { synchronous?: 'full' | 'normal' } = {}): Promise<SqliteJobRepository> {
    const { synchronous = 'full' } = options;
    if (!['full', 'normal'].includes(synchronous)) throw invalid('synchronous', `must be 'full' or 'normal', got ${shown(synchronous)}`, 'options');
    return made(new SqliteJobRepository(), await settled(binding.openSqlite(checkText(path, 'path'), synchronous === 'full')));
  }
}

/** Keeps jobs in PostgreSQL. */
export class PostgresJobRepository extends DurableJobRepository {
  /**
   * Connects, and makes or migrates the tables.
   *
   * @param url its parameters `max` and `schema` stand for the options.
   * @param options `maxConnections`: default 10; `schema`: default the connection's own.
   * @throws FramewrightError STORE_UNAVAILABLE, STORE_CORRUPT.
   */
  static async connect(url: string, options: { maxConnections?: number; schema?: string } = {}): Promise<PostgresJobRepository> {
    const server = readServerUrl(url, POSTGRES_PARAMETERS);
    const most = integer(options.maxConnections, 'maxConnections', server.max, 1);
    const schema = options.schema ?? server.schema;
    return made(new PostgresJobRepository(), await settled(binding.openPostgres(server.url, most, schema === null ? null : checkText(schema, 'schema'))));
  }
}

/** Keeps jobs in MySQL or MariaDB. */
export class MysqlJobRepository extends DurableJobRepository {
  /**
   * Connects, and makes or migrates the tables.
   *
   * @param url its parameter `max` stands for the option.
   * @param options `maxConnections`: default 10.
   * @throws FramewrightError STORE_UNAVAILABLE, STORE_CORRUPT.
   */
  static async connect(url: string, options: { maxConnections?: number } = {}): Promise<MysqlJobRepository> {
    const server = readServerUrl(url, MYSQL_PARAMETERS);
    return made(new MysqlJobRepository(), await settled(binding.openMysql(server.url, integer(options.maxConnections, 'maxConnections', server.max, 1))));
  }
}

/** The part of a URL after its scheme, and its parameters. */
function split(url: string, scheme: string): { path: string; parameters: URLSearchParams } {
  const rest = url.slice(scheme.length);
  const at = rest.indexOf('?');
  const encoded = at < 0 ? rest : rest.slice(0, at);
  let path: string;
  try {
    path = decodeURIComponent(encoded);
  } catch {
    throw invalid('url', `has a path that is not percent-encoded well: ${shown(encoded)}`);
  }
  // "file:///srv/jobs" as well as "file:/srv/jobs" and "file:jobs".
  if (path.startsWith('//')) path = path.slice(2);
  if (path === '') throw invalid('url', `names no path after "${scheme}"`);
  return { path, parameters: new URLSearchParams(at < 0 ? '' : rest.slice(at + 1)) };
}

function onlyThese(parameters: URLSearchParams, known: readonly string[]): void {
  for (const name of parameters.keys()) {
    // PostgreSQL has options[name]=value.
    const plain = /^options\[.+]$/.test(name) ? 'options' : name;
    if (!known.includes(plain)) throw invalid('url', `has an unknown parameter "${name}"${known.length > 0 ? `; known: ${known.join(', ')}` : ''}`);
  }
}

/**
 * Opens a repository by its URL: "memory:", "file:DIR", "sqlite:PATH?synchronous=full", "postgres://...?schema=s&max=10",
 * "mysql://...?max=10". Paths are percent-decoded. TLS is used where the server offers it; "sslmode=verify-full&sslrootcert=ca.pem"
 * (PostgreSQL) and "ssl-mode=VERIFY_IDENTITY&ssl-ca=ca.pem" (MySQL) insist on it and on the host's certificate.
 *
 * @throws FramewrightError VALIDATION (the URL), STORE_UNAVAILABLE (away, refused, silent for 30 s, wrong credentials, no
 *   permission to write, a newer schema, a file store that another process has open), STORE_CORRUPT (not a store of ours).
 */
export async function openRepository(url: string): Promise<JobRepository & { close(): Promise<void> }> {
  checkText(url, 'url');
  const scheme = /^[a-z]+:/.exec(url)?.[0] ?? '';
  switch (scheme) {
    case 'memory:':
      if (url !== 'memory:') throw invalid('url', 'must be just "memory:"');
      return new InMemoryJobRepository();
    case 'file:': {
      const { path, parameters } = split(url, scheme);
      onlyThese(parameters, []);
      const repository = new FileJobRepository(path);
      // Opened now, so that what is wrong is heard here.
      await settled((stores.get(repository) as DurableStore).events(1, 0));
      return repository;
    }
    case 'sqlite:': {
      const { path, parameters } = split(url, scheme);
      onlyThese(parameters, ['synchronous']);
      const synchronous = (parameters.get('synchronous') ?? 'full') as 'full';
      return SqliteJobRepository.open(path, { synchronous });
    }
    case 'postgres:':
    case 'postgresql:':
      return PostgresJobRepository.connect(url);
    case 'mysql:':
    case 'mariadb:':
      return MysqlJobRepository.connect(url.replace(/^mariadb:/, 'mysql:'));
    default:
      throw invalid('url', `must begin with memory:, file:, sqlite:, postgres: or mysql:`);
  }
}

/** Compared, never called. */
const own = Object.getOwnPropertyDescriptors(DurableJobRepository.prototype);

/** Names of the methods of a durable repository that are not its own any more. */
export function overridden(repository: JobRepository): string[] {
  return (['save', 'get', 'list', 'delete'] as const).filter((name) => repository[name] !== own[name].value);
}
