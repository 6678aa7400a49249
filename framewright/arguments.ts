/** Checks of what users call with; what is wrong is told with its name and changes nothing. */
import { invalid } from './errors.js';

export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null;
}

/** An options object. */
export function checkObject(value: unknown, name = 'options'): asserts value is Record<string, unknown> {
  if (!isObject(value) || Array.isArray(value)) throw invalid(name, `must be an object, got ${shown(value)}`, name);
}

/** For messages: a value in a few characters. */
export function shown(value: unknown): string {
  if (typeof value === 'string') return JSON.stringify(value.length > 60 ? `${value.slice(0, 60)}...` : value);
  if (value === null || ['number', 'boolean', 'bigint', 'undefined'].includes(typeof value)) return String(value);
  return Array.isArray(value) ? 'an array' : `a ${typeof value}`;
}

/** An id as an argument. */
export function checkId(id: unknown): string {
  if (typeof id !== 'string') throw invalid('id', `must be a string, got ${shown(id)}`);
  return id;
}

/** A number of at least `least`; Infinity is one. */
export function amount(value: unknown, name: string, fallback: number, least = 0): number {
  if (value === undefined) return fallback;
  if (typeof value !== 'number' || !(value >= least)) throw invalid(name, `must be a number of ${least} or more, got ${shown(value)}`, 'options');
  return value;
}

/** An integer of at least `least`; Infinity, too, where it is the default. */
export function integer(value: unknown, name: string, fallback: number, least = 0): number {
  const number = amount(value, name, fallback, least);
  if (!Number.isInteger(number) && number !== fallback) throw invalid(name, `must be an integer of ${least} or more, got ${shown(value)}`, 'options');
  return number;
}

export function checkFlag(value: unknown, name: string): void {
  if (value !== undefined && typeof value !== 'boolean') throw invalid(name, `must be true or false, got ${shown(value)}`, 'options');
}

export function checkSignal(value: unknown, name = 'signal'): asserts value is AbortSignal | undefined {
  if (value === undefined) return;
  if (!isObject(value) || typeof value['aborted'] !== 'boolean' || typeof value['addEventListener'] !== 'function') {
    throw invalid(name, 'must be an AbortSignal', 'options');
  }
}

export function checkMethod(value: unknown, name: string, method: string): void {
  if (!isObject(value) || typeof value[method] !== 'function') throw invalid(name, `must be an object with a method ${method}`);
}

/** A string that may be handed to the operating system. */
export function isText(value: unknown): value is string {
  return typeof value === 'string' && !value.includes('\0') && value.isWellFormed();
}

/** Every entry of an array, holes included. */
export function isTexts(value: unknown): value is string[] {
  return Array.isArray(value) && Array.from(value as unknown[]).every(isText);
}
