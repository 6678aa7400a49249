/** Everything that can keep jobs, fresh for each test. */
import { InMemoryJobRepository, openRepository, type JobRepository } from 'framewright';
import { afterManagers } from './managers.js';
import { durable, mariadb, shared as sharedPlaces, type Place } from './stores.js';
import { VersionedRepository } from './versioned-repository.js';

export interface Store {
  /** Opens the same jobs again; closed when the test has ended. */
  open(): Promise<JobRepository>;
}

export interface DurableStore extends Store {
  /** For other processes. */
  readonly url: string;
  open(): Promise<JobRepository & { close(): Promise<void> }>;
}

interface Kind<T extends Store> {
  kind: string;
  create(): T;
}

function durableKind({ kind, create }: Place): Kind<DurableStore> {
  return {
    kind,
    create() {
      const url = create();
      return {
        url,
        async open() {
          const repository = await openRepository(url);
          afterManagers(() => repository.close());
          return repository;
        },
      };
    },
  };
}

/** Those that outlive the process. */
export const durables = [...durable, mariadb].map(durableKind);

/** Those that processes of this host can share. */
export const shared = [...sharedPlaces, mariadb].map(durableKind);

function once(repository: JobRepository): Store {
  return { open: () => Promise.resolve(repository) };
}

/** All of them: in memory, durable, and as users write them. */
export const stores: Kind<Store>[] = [
  { kind: 'memory', create: () => once(new InMemoryJobRepository()) },
  ...durables,
  { kind: "a repository of the user's", create: () => once(new VersionedRepository(true)) },
];
