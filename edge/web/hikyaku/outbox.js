/**
 * Requests on their way: what to send next, in which order, and what an answer means. No I/O.
 *
 * Of two writes to one chat the later one never overtakes the earlier: each chat is a lane, and only
 * the first entry of a lane is on the wire. Questions have a lane each, and few are open at once.
 */

import { HikyakuError } from './errors.js';
import { RETRYABLE, retryDelayMs } from './policy.js';

const QUESTIONS_AT_ONCE = 8;
const PACED_FOR_MS = 10_000;

/**
 * @typedef {object} Entry
 * @property {string} key the `client_id` of a write, else the `id` of a question
 * @property {string} lane
 * @property {object} frame
 * @property {number} order
 * @property {number} deadline when to give up; Infinity for a write
 * @property {boolean} durable kept in the storage until it was answered
 * @property {'waiting'|'sent'|'failed'} state
 * @property {number} at when it was made, Unix ms
 * @property {number} attempts
 * @property {number} notBefore
 * @property {HikyakuError} [error] the last refusal
 */

export class Outbox {
  /** @type {Map<string, Entry>} */
  entries = new Map();
  perSecond = 20;
  #halted = 0;
  #paced = 0;

  /** @returns {Entry} */
  add({ key, lane, frame, order, deadline = Infinity, durable = false, at = 0, attempts = 0 }) {
    const entry = { key, lane, frame, order, deadline, durable, at, attempts };
    this.entries.set(key, Object.assign(entry, { state: 'waiting', notBefore: 0 }));
    return entry;
  }

  /** Writes that were not answered, oldest first. @returns {Entry[]} */
  get writes() {
    return this.#ordered().filter((entry) => entry.durable);
  }

  /** What is to be sent now, oldest first; it counts as sent. @returns {Entry[]} */
  takeDue(now) {
    if (now < this.#halted) return [];
    let due = this.#heads().filter((each) => each.state === 'waiting' && each.notBefore <= now);
    const questions = due.filter((each) => !each.durable);
    let room = QUESTIONS_AT_ONCE;
    for (const each of this.entries.values()) if (!each.durable && each.state === 'sent') room--;
    const late = new Set(questions.slice(Math.max(room, 0)));
    due = due.filter((each) => !late.has(each));
    if (due.length && now < this.#paced) {
      due.length = 1;
      this.#halted = now + 1000 / Math.max(this.perSecond, 0.1);
    }
    for (const each of due) {
      each.state = 'sent';
      each.attempts++;
    }
    return due;
  }

  /** When `takeDue` may have something, or a deadline ends; Infinity while nothing waits. */
  nextDue(ready) {
    let next = Infinity;
    for (const each of this.entries.values()) next = Math.min(next, each.deadline);
    if (!ready) return next;
    for (const each of this.#heads()) {
      if (each.state === 'waiting') next = Math.min(next, Math.max(each.notBefore, this.#halted));
    }
    return next;
  }

  /** No answer will come to what was sent: all of it is due again, in its order. */
  disconnected() {
    for (const each of this.entries.values()) if (each.state === 'sent') each.state = 'waiting';
  }

  /** Take a final answer, or the message itself. @returns {Entry|undefined} removed */
  answered(key) {
    const entry = this.entries.get(key);
    this.entries.delete(key);
    return entry;
  }

  /**
   * Take an `error`. A write that is refused for good stays, failed, until it is sent again or
   * given up; the later ones of its lane go on.
   * @returns {Entry|undefined} the entry if that was the end of it
   */
  refused(frame, now, chance = Math.random()) {
    const entry = this.entries.get(frame.client_id) ?? this.entries.get(frame.id);
    if (!entry) {
      // A frame was thrown away unread: nobody knows which.
      if (frame.code === 'rate_limited') this.#halt(now + retryDelayMs(frame, 1, chance));
      return undefined;
    }
    entry.error = HikyakuError.of(frame);
    if (RETRYABLE.has(frame.code)) {
      const at = now + retryDelayMs(frame, entry.attempts, chance);
      if (frame.code === 'rate_limited') this.#halt(at);
      if (at < entry.deadline) {
        Object.assign(entry, { state: 'waiting', notBefore: at });
        return undefined;
      }
    }
    entry.state = 'failed';
    if (!entry.durable) this.entries.delete(entry.key);
    return entry;
  }

  /** Send a failed write again, at the end of its lane. */
  again(key, order) {
    const entry = this.entries.get(key);
    if (entry) Object.assign(entry, { state: 'waiting', notBefore: 0, order, error: undefined });
    return entry;
  }

  /** Questions whose time is over, removed. @returns {Entry[]} */
  expired(now) {
    const over = [...this.entries.values()].filter((each) => each.deadline <= now);
    for (const each of over) this.entries.delete(each.key);
    return over;
  }

  #halt(until) {
    this.#halted = Math.max(this.#halted, until);
    this.#paced = until + PACED_FOR_MS;
  }

  #ordered() {
    return [...this.entries.values()].sort((a, b) => a.order - b.order);
  }

  #heads() {
    const lanes = new Map();
    for (const each of this.#ordered()) {
      if (each.state !== 'failed' && !lanes.has(each.lane)) lanes.set(each.lane, each);
    }
    return [...lanes.values()];
  }
}
