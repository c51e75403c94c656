/** One WebSocket, from opening to its end; notices when the other side has fallen silent. */

import { CLOSE } from './policy.js';

const OPEN_WITHIN_MS = 10_000;
const LOOK_EVERY_MS = 5_000;
const GRACE_MS = 10_000;

export class Socket {
  heartbeatMs = 30_000;
  #socket;
  #heard = performance.now();
  #asked = Infinity;
  #watch;
  #end;

  /**
   * @param {URL} url of `/ws/chat` with its parameters
   * @param {string} token
   * @param {(frame: object) => void} onFrame
   */
  constructor(url, token, onFrame) {
    /** @type {Promise<{code: number, reason: string}>} resolves once, when it is over */
    this.ended = new Promise((resolve) => (this.#end = resolve));
    const socket = new WebSocket(url, ['hikyaku.v1', `bearer.${token}`]);
    this.#socket = socket;
    const opening = setTimeout(() => this.abandon('no answer'), OPEN_WITHIN_MS);
    socket.onopen = () => clearTimeout(opening);
    socket.onclose = ({ code, reason }) => {
      clearTimeout(opening);
      clearInterval(this.#watch);
      this.#end({ code, reason });
    };
    socket.onmessage = ({ data }) => {
      this.#heard = performance.now();
      this.#asked = Infinity;
      const frame = JSON.parse(data);
      if (frame.type === 'ping') this.send({ type: 'pong' });
      else onFrame(frame);
    };
    this.#watch = setInterval(() => this.#look(), LOOK_EVERY_MS);
  }

  send(frame) {
    if (this.#socket.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify(frame));
  }

  /** An answer is awaited; nothing at all within `ms`, and the connection counts as lost. */
  expect(ms) {
    this.#asked = Math.min(this.#asked, performance.now() + ms);
    setTimeout(() => this.#look(), ms + 1);
  }

  #look() {
    const now = performance.now();
    if (now > this.#heard + this.heartbeatMs + GRACE_MS || now > this.#asked) {
      this.abandon('the server fell silent');
    }
  }

  /** Do not wait for a good end, which a dead network would hold up for minutes. */
  abandon(reason) {
    this.close();
    this.#end({ code: CLOSE.LOST, reason });
  }

  close() {
    clearInterval(this.#watch);
    this.#socket.onmessage = null;
    this.#socket.close(1000);
  }
}
