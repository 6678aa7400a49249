import type { JobEvent, JobEventType, JobManager } from 'framewright';

/** The events of a manager from now on, as a list that grows. */
export function traceOf(manager: JobManager): JobEvent[] {
  const events: JobEvent[] = [];
  manager.on('event', (event: JobEvent) => events.push(event));
  return events;
}

/** The types of the events of one job. */
export function typesOf(events: JobEvent[], jobId: string): JobEventType[] {
  return events.filter((event) => event.jobId === jobId).map((event) => event.type);
}

/** The next event of a type, of one job or of any. */
export function nextEvent<T extends JobEventType>(manager: JobManager, type: T, jobId?: string): Promise<Extract<JobEvent, { type: T }>> {
  return new Promise((resolve) => {
    const listener = (event: Extract<JobEvent, { type: T }>): void => {
      if (jobId !== undefined && event.jobId !== jobId) return;
      manager.off(type, listener);
      resolve(event);
    };
    manager.on(type, listener as Parameters<typeof manager.on<T>>[1]);
  });
}
