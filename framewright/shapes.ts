/**
 * Objects that keep compiled code alive. When the last object of a class is collected V8 forgets its shape, and with it the
 * code that was compiled for that shape: without these, each full collection between two jobs had the next one start cold.
 */
const kept: object[] = [];

/** Keeps an object for ever: one of each class whose objects all go with their run or their manager. */
export function keepShapeOf(object: object): void {
  kept.push(object);
}
