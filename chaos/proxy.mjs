/** A TCP proxy before a server. Cut, it keeps every connection and forwards nothing: half-open, as after a pulled cable. */
import { connect, createServer } from 'node:net';

export class Proxy {
  #server;
  #pairs = new Set();
  #cut = false;

  /** Listens on a port of its own. */
  static async before(port) {
    const proxy = new Proxy();
    proxy.#server = createServer({ allowHalfOpen: true }, (near) => proxy.#forward(near, port));
    await new Promise((resolve, reject) => proxy.#server.once('error', reject).listen(0, '127.0.0.1', resolve));
    proxy.port = proxy.#server.address().port;
    return proxy;
  }

  #forward(near, port) {
    const far = connect({ port, host: '127.0.0.1', allowHalfOpen: true });
    const pair = [near, far];
    this.#pairs.add(pair);
    const end = () => {
      // A connection that is cut does not even learn that the other side has gone.
      if (this.#cut) return;
      this.#pairs.delete(pair);
      near.destroy();
      far.destroy();
    };
    for (const [from, to] of [pair, [far, near]]) {
      from.on('data', (data) => {
        if (!to.write(data)) from.pause();
      });
      to.on('drain', () => {
        if (!this.#cut) from.resume();
      });
      from.on('end', () => {
        if (!this.#cut) to.end();
      });
      from.on('error', end);
      from.on('close', end);
    }
    if (this.#cut) for (const socket of pair) socket.pause();
  }

  /** Forwards nothing any more. */
  cut() {
    this.#cut = true;
    for (const pair of this.#pairs) for (const socket of pair) socket.pause();
  }

  /** Forwards again, what was held up first; or ends the connections that were cut. */
  heal(reset) {
    this.#cut = false;
    for (const pair of this.#pairs) {
      for (const socket of pair) {
        if (reset || pair.some((one) => one.destroyed || one.readableEnded)) socket.destroy();
        else socket.resume();
      }
    }
  }

  close() {
    this.#cut = false;
    for (const pair of this.#pairs) for (const socket of pair) socket.destroy();
    this.#server.close();
  }
}
