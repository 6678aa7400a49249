/** The job's folder and file in the user's storage: brought there before a run, removed with the job. */
import { isObject } from './arguments.js';
import { FramewrightError, messageOf } from './errors.js';
import type { JobRun } from './run.js';
import type { ArtifactStorage, JobSpec } from './types.js';

export function isStorage(value: unknown): value is ArtifactStorage {
  return isObject(value) && typeof value['uploadAssetBundle'] === 'function';
}

/** Where a job's things are. */
export interface Stored {
  assetsUrl?: unknown;
  jobDefUrl?: unknown;
}

type Log = (message: string) => void;

/**
 * Brings a job's folder and file to the storage and sets `spec.assetsUrl`; gives the file's url. `undefined`: the run was
 * stopped meanwhile, and what was brought there is removed.
 */
export async function upload(storage: ArtifactStorage, run: JobRun, jobDir: string, spec: JobSpec, log: Log): Promise<string | undefined> {
  const takeBack = async (): Promise<void> => {
    const { stored } = run;
    run.stored = {};
    await cleanUp(storage, run.id, stored, log);
  };
  const unwanted = async (): Promise<boolean> => {
    if (!run.isOver() && !run.aborted) return false;
    await takeBack();
    return true;
  };
  try {
    const assetsUrl = await storage.uploadAssetBundle(run.id, jobDir);
    run.stored.assetsUrl = assetsUrl;
    if (await unwanted()) return undefined;
    const copy = JSON.parse(JSON.stringify(spec)) as JobSpec;
    const jobDefUrl = await storage.uploadJobSpec(run.id, { ...copy, assetsUrl });
    run.stored.jobDefUrl = jobDefUrl;
    if (await unwanted()) return undefined;
    spec.assetsUrl = assetsUrl;
    return jobDefUrl;
  } catch (error) {
    await takeBack();
    throw new FramewrightError('STORAGE_FAILED', `Asset/Spec upload failed: ${messageOf(error)}`, { cause: error });
  }
}

/** Removes what was stored for a job; failures are told and leave the job deleted. */
export async function cleanUp(storage: ArtifactStorage, id: string, { assetsUrl, jobDefUrl }: Stored, log: Log): Promise<void> {
  const attempt = async (what: string, remove: () => Promise<void>): Promise<void> => {
    try {
      await remove();
    } catch (error) {
      log(`${what} of job "${id}" could not be removed: ${messageOf(error)}`);
    }
  };
  if (typeof assetsUrl === 'string') await attempt('The assets', () => storage.deleteAssetBundle(id, assetsUrl));
  if (typeof jobDefUrl === 'string') await attempt('The spec', () => storage.deleteJobSpec(id, jobDefUrl));
}
