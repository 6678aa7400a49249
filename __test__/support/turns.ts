/** Turns of the event loop, also where a test has put fake timers in place. */
const { setImmediate } = globalThis;
const now = performance.now.bind(performance);

export const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

export async function turns(count: number): Promise<void> {
  for (let n = 0; n < count; n += 1) await turn();
}

/** Resolves in the first turn in which a condition holds. */
export async function until(holds: () => unknown, what = 'the condition'): Promise<void> {
  const end = now() + 10_000;
  for (;;) {
    const held: unknown = await holds();
    if (held) return;
    if (now() > end) throw new Error(`${what} did not come true: ${holds.toString()}`);
    await turn();
  }
}
