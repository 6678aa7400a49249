/** A list that can be waited on. */
export class Watched<T> {
  readonly items: T[] = [];
  #waiting: (() => void)[] = [];

  push(item: T): void {
    this.items.push(item);
    for (const look of this.#waiting.splice(0)) look();
  }

  /** The first item for which a test holds, that is there or comes. */
  async first(test: (item: T) => boolean, what: string, limitMs = 12_000): Promise<T> {
    let from = 0;
    const end = performance.now() + limitMs;
    for (;;) {
      for (; from < this.items.length; from += 1) {
        const item = this.items[from] as T;
        if (test(item)) return item;
      }
      const left = end - performance.now();
      if (left <= 0) throw new Error(`${what} did not come; there are ${this.items.map((item) => JSON.stringify(item)).join('\n')}`);
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, left);
        this.#waiting.push(() => {
          clearTimeout(timer);
          resolve();
        });
      });
    }
  }
}
