import { InMemoryJobRepository, JobManager, type ArtifactStorage, type Executor, type JobManagerOptions, type JobRepository } from 'framewright';
import { afterEach } from 'vitest';
import { MapRepository } from './map-repository.js';

const opened: JobManager[] = [];
const after: (() => unknown)[] = [];

afterEach(async () => {
  await Promise.all(opened.splice(0).map((manager) => manager.close({ abortMs: 0 })));
  for (const call of after.splice(0).reverse()) await call();
});

/** Is called when the test has ended and its managers are closed, the latest first. */
export function afterManagers(call: () => unknown): void {
  after.push(call);
}

/** A manager that is closed when its test has ended. */
export function open(repository: JobRepository, executor?: Executor, options?: ArtifactStorage | JobManagerOptions): JobManager {
  const manager = new JobManager(repository, executor, options);
  opened.push(manager);
  return manager;
}

/** Both kinds of repository, for promises that hold whatever keeps the jobs. */
export const repositories: { kind: string; create: () => JobRepository }[] = [
  { kind: 'in memory', create: () => new InMemoryJobRepository() },
  { kind: 'in a Map, asynchronously', create: () => new MapRepository() },
];
