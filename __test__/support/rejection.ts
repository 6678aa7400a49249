import { FramewrightError } from 'framewright';

/** The error that a call rejects with; it must be one of framewright's. */
export async function rejection(call: Promise<unknown>): Promise<FramewrightError> {
  let value: unknown;
  try {
    value = await call;
  } catch (error) {
    if (error instanceof FramewrightError) return error;
    throw new Error(`rejected with something else than a FramewrightError: ${String(error)}`, { cause: error });
  }
  throw new Error(`resolved with ${JSON.stringify(value)}, where a rejection was promised`);
}
