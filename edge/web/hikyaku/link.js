/** Connects, and again whenever a connection has ended; where the token comes from. */

import { HikyakuError } from './errors.js';
import { CLOSE, afterClose } from './policy.js';
import { Socket } from './socket.js';

const HEALTHY_MS = 10_000;

export class Link {
  running = false;
  /** The present token. @type {string|null} */
  token = null;
  /** @type {Socket|null} */
  socket = null;
  #source;
  #does;
  #asking = null;
  #wake = () => {};

  /**
   * @param {string|(() => Promise<string>)} source of tokens
   * @param {object} does
   * @param {() => URL} does.address of the next connection
   * @param {(frame: object) => void} does.frame one came in
   * @param {() => void} does.ended the connection is gone
   * @param {(state: object) => void} does.state it changed
   */
  constructor(source, does) {
    this.#source = source;
    this.#does = does;
  }

  start() {
    this.running = true;
    this.#run().catch((error) => {
      this.running = false;
      this.#does.state({ phase: 'stopped', reason: String(error) });
      globalThis.reportError(error);
    });
  }

  stop() {
    this.running = false;
    this.socket?.abandon('stopped');
    this.#wake();
  }

  /** Do not wait for the next try. */
  hurry() {
    this.#wake();
  }

  async #run() {
    let failures = 0;
    let refusals = 0;
    let reason;
    while (this.running) {
      this.#does.state({ phase: 'connecting', reason });
      const started = performance.now();
      const ended = await this.#connection();
      if (!this.running) return;
      if (ended.welcomed) refusals = 0;
      if (ended.welcomed && performance.now() - started > HEALTHY_MS) failures = 0;
      failures++;
      if (ended.code === CLOSE.UNAUTHORIZED || ended.code === CLOSE.TOKEN_EXPIRED) refusals++;
      const canRenew = typeof this.#source === 'function';
      const chance = Math.random();
      const next = afterClose(ended, { failures, refusals, canRenew, chance });
      const { code } = ended;
      ({ reason } = ended);
      if (next.stop || ended.final) {
        this.running = false;
        this.#does.state({ phase: 'stopped', code, reason });
        return;
      }
      if (next.newToken) this.token = null;
      this.#does.state({ phase: 'waiting', retryAt: Date.now() + next.delayMs, code, reason });
      await this.#wait(next.delayMs);
    }
  }

  #wait(ms) {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, ms);
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }

  /** The present token, or a new one. */
  async bearer() {
    if (this.token !== null) return this.token;
    if (typeof this.#source !== 'function') return (this.token = this.#source);
    this.#asking ??= this.#source().finally(() => (this.#asking = null));
    return (this.token = await this.#asking);
  }

  async #connection() {
    try {
      await this.bearer();
    } catch (error) {
      const final = error instanceof HikyakuError && !error.retryable;
      return { code: final ? CLOSE.UNAUTHORIZED : CLOSE.LOST, reason: String(error.message), final };
    }
    if (!this.running) return { code: CLOSE.LOST };
    let welcomed = false;
    const socket = new Socket(this.#does.address(), this.token, (frame) => {
      welcomed ||= frame.type === 'welcome';
      if (this.socket === socket) this.#does.frame(frame);
    });
    this.socket = socket;
    const ended = await socket.ended;
    this.socket = null;
    this.#does.ended();
    return { ...ended, welcomed };
  }
}
