/** What adapters of users give, whatever it is, as the engine takes it. */

/** An exit code, which the engine holds in 32 bits. */
export function exitCodeOf(exitCode: number): number {
  return Math.max(-0x8000_0000, Math.min(exitCode, 0x7fff_ffff));
}

/** Output. */
export function textOf(value: unknown): string {
  return typeof value === 'string' ? value : '';
}
