/**
 * The protocol of Hikyaku for web pages: connect, resume, outbox, typed events. No DOM.
 *
 *     import { Client, IndexedStorage } from 'https://chat.example.org/web/hikyaku.js';
 *
 *     const client = new Client({
 *       url: 'https://chat.example.org/',
 *       token: async () => (await fetch('/my-token')).text(),
 *       storage: await IndexedStorage.open('hikyaku/alice'),
 *     });
 *     client.on('chat', (message) => console.log(message.from, message.content));
 *     client.start();
 *     client.send({ to: 'bob', content: 'hello' });
 *
 * `docs/web.md` tells more; frames and fields are those of `docs/protocol.md`.
 *
 * @typedef {{id: string, seq: number, chat_id: string, from: string, to?: string,
 *   group_id?: string, content: string, content_type: string, timestamp: number,
 *   client_id: string, reply_to?: string, thread?: string, attachments?: string[],
 *   mentions?: string[], edited_at?: number, deleted?: boolean, replies?: number,
 *   reactions?: Object<string, string[]>}} Message
 *
 * @typedef {'closed'|'connecting'|'catching_up'|'online'|'waiting'|'stopped'} Phase
 * @typedef {{phase: Phase, retryAt?: number, code?: number, reason?: string}} ConnectionState
 *
 * @typedef {object} Events what `on` can listen for; `event` gets every frame that is new
 * @property {ConnectionState} state the connection changed
 * @property {object} welcome, caught_up, message_edited, message_deleted, reaction, read_receipt
 * @property {Message} chat, group_chat
 * @property {import('./hikyaku/outbox.js').Entry} outbox a write was added, refused or answered
 * @property {object} ack with `entry`, the write that is on disk now; at its place in the chat, or with
 *   `status` `accepted` on its way to the site where the chat lives
 */

import { HikyakuError } from './hikyaku/errors.js';
import { addressee, dmChatId, groupChatId } from './hikyaku/ids.js';
import { Outbox } from './hikyaku/outbox.js';
import { Link } from './hikyaku/link.js';
import { MemoryStorage } from './hikyaku/storage.js';
import { Tracker } from './hikyaku/tracker.js';

export * from './hikyaku/errors.js';
export * from './hikyaku/ids.js';
export * from './hikyaku/storage.js';

const DEADLINE_MS = 10_000;
const ANSWER_MS = 10_000;
const SAVE_AFTER_MS = 300;
const TYPING_EVERY_MS = 3_000;
const MAX_TIMER_MS = 2 ** 31 - 1;
const MAX_WAITING = 1000;

/** One user on one device. */
export class Client {
  /** @type {ConnectionState} */
  state = { phase: 'closed' };
  /** The last `welcome`, with `user_id` and `limits`. @type {object|null} */
  session = null;
  /** Writes without an answer, with their state. */
  outbox = new Outbox();

  #listeners = new Map();
  #answers = new Map();
  #tracker = new Tracker();
  #ready = false;
  #started = false;
  #timer = 0;
  #saving = 0;
  #order = Date.now() * 1000;
  #watched = new Set();
  #opened = new Set();
  #typed = new Map();

  /**
   * @param {object} options
   * @param {string|URL} options.url of the server, as for a browser
   * @param {string|(() => Promise<string>)} options.token a function is asked again when the server
   *   wants a new one; it says "try later" by any error but a `HikyakuError`
   * @param {string} [options.user] the user id, when it is known before the server says it
   * @param {string} [options.device] 1 to 64 of `[A-Za-z0-9_-]`
   * @param {MemoryStorage|import('./hikyaku/storage.js').IndexedStorage} [options.storage]
   * @param {() => Map<string, any>} [options.records] what to store with the cursor, each time
   */
  constructor({ url, token, user = '', device = '', storage = new MemoryStorage(), records }) {
    this.url = new URL(url, globalThis.location?.href);
    this.user = user;
    this.device = device;
    this.storage = storage;
    this.#link = new Link(token, {
      address: () => this.#address(),
      frame: (frame) => this.#frame(frame),
      ended: () => this.#ended(),
      state: (state) => this.#set(state),
    });
    this.#records = records ?? (() => new Map());
  }

  #link;
  #records;

  /** The token, for HTTP requests beside the connection. @returns {Promise<string>} */
  async bearer() {
    try {
      return await this.#link.bearer();
    } catch (error) {
      throw new HikyakuError('offline', `no token: ${error.message}`, { retryable: true });
    }
  }

  // --- events ---

  /**
   * @param {keyof Events | string} type @param {(event: any) => void} listener
   * @returns {() => void} ends it
   */
  on(type, listener) {
    if (!this.#listeners.has(type)) this.#listeners.set(type, new Set());
    this.#listeners.get(type).add(listener);
    return () => this.#listeners.get(type).delete(listener);
  }

  #emit(type, event) {
    for (const listener of this.#listeners.get(type) ?? []) {
      try {
        listener(event);
      } catch (error) {
        // One listener's fault is not the others'; it must be seen all the same.
        globalThis.reportError(error);
      }
    }
  }

  // --- beginning and end ---

  /** Begin, and stay connected. @param {string|null} [cursor] where to resume, if not stored */
  async start(cursor) {
    if (this.#started) return;
    this.#started = true;
    if (cursor === undefined) ({ cursor } = await this.storage.load());
    this.#tracker = new Tracker(cursor);
    await this.storage.adopt((entries) => this.#adopt(entries));
    if (this.#started) this.#link.start();
  }

  #adopt(entries) {
    for (const entry of entries) {
      if (this.outbox.entries.has(entry.key)) continue;
      this.#emit('outbox', this.outbox.add({ ...entry, durable: true }));
    }
    this.#pump();
  }

  /** Disconnect. What is in the outbox stays stored; questions fail. */
  stop() {
    this.#started = false;
    clearTimeout(this.#timer);
    this.flush();
    this.#link.stop();
    for (const key of [...this.#answers.keys()]) {
      this.#settle(key, new HikyakuError('stopped', 'the client was stopped'));
    }
    this.#set({ phase: 'closed' });
  }

  /** Do not wait for the next try to connect. */
  reconnect() {
    this.#link.hurry();
  }

  /** Find out now whether the connection is alive, for example when the network changed. */
  probe() {
    if (!this.#ready) return this.reconnect();
    this.request('refresh', { token: this.#link.token }, { deadlineMs: 3000 }).catch(() => {});
    this.#link.socket?.expect(3000);
    return undefined;
  }

  #set(state) {
    this.state = state;
    this.#emit('state', state);
  }

  #address() {
    const url = new URL('ws/chat', this.url);
    url.protocol = url.protocol.replace('http', 'ws');
    if (this.device) url.searchParams.set('device', this.device);
    if (this.#tracker.cursor) url.searchParams.set('cursor', this.#tracker.cursor);
    return url;
  }

  #ended() {
    this.#ready = false;
    this.#tracker.ended();
    this.outbox.disconnected();
  }

  // --- frames ---

  #frame(frame) {
    switch (frame.type) {
      case 'welcome':
        this.session = frame;
        this.user = frame.user_id;
        this.outbox.perSecond = frame.limits?.messages_per_s ?? 20;
        this.#link.socket.heartbeatMs = frame.heartbeat_s * 1000;
        this.#emit('welcome', frame);
        if (this.#tracker.welcome(frame)) this.#set({ phase: 'catching_up' });
        else this.#online();
        this.#save();
        return;
      case 'caught_up': {
        const end = this.#tracker.caughtUp(frame);
        this.#emit('caught_up', end);
        this.#online();
        this.#changed();
        return;
      }
      case 'ack':
        this.#acked(frame);
        return;
      case 'result':
        this.outbox.answered(frame.id);
        this.#settle(frame.id, null, frame);
        this.#pump();
        return;
      case 'error':
        this.#refused(frame);
        return;
      default:
        if (!this.#tracker.admit(frame)) return;
        this.#emit(frame.type, frame);
        this.#emit('event', frame);
        if (frame.seq !== undefined) this.#changed();
        // Our own write comes back before its ack, or after the connection that sent it is gone.
        if (frame.client_id && frame.from === this.user) {
          this.#done(frame.client_id);
          this.#settle(frame.client_id, null, frame);
        }
    }
  }

  #online() {
    this.#ready = true;
    this.#set({ phase: 'online' });
    for (const chatId of this.#opened) this.#open(chatId);
    if (this.#watched.size) this.watch([...this.#watched]).catch(() => {});
    this.#pump();
  }

  #acked(frame) {
    const entry = this.#done(frame.client_id);
    if (entry) this.#emit('ack', { ...frame, entry });
    this.#settle(frame.client_id, null, frame);
    this.#pump();
  }

  #done(key) {
    const entry = this.outbox.entries.get(key);
    if (!entry?.durable) return undefined;
    this.outbox.answered(key);
    this.#keep(this.storage.deleteEntry(key));
    this.#emit('outbox', entry);
    return entry;
  }

  #refused(frame) {
    const entry = this.outbox.refused(frame, performance.now());
    if (entry) {
      this.#settle(entry.key, entry.error);
      if (entry.durable) this.#emit('outbox', entry);
    }
    this.#pump();
  }

  // --- requests ---

  /**
   * Ask a question; the `result`. Sent again over reconnects until the deadline.
   * @param {string} type @param {object} [fields] @param {{deadlineMs?: number}} [options]
   * @returns {Promise<object>} rejects with a `HikyakuError`
   */
  request(type, fields = {}, { deadlineMs = DEADLINE_MS } = {}) {
    const key = `q${++this.#order}`;
    const frame = { ...fields, type, id: key };
    const deadline = performance.now() + deadlineMs;
    return new Promise((resolve, reject) => {
      if (!this.#started) throw new HikyakuError('stopped', 'the client does not run');
      this.#room();
      this.#answers.set(key, { resolve, reject });
      this.outbox.add({ key, lane: key, frame, order: this.#order, deadline });
      this.#pump();
    });
  }

  /**
   * Write: kept until the server has it on disk, and stored once. Writes to one chat are stored in
   * the order of the calls.
   * @param {string} type @param {object} fields @param {string} chatId
   * @returns {import('./hikyaku/outbox.js').Entry}
   */
  write(type, fields, chatId) {
    this.#room();
    const key = fields.client_id ?? crypto.randomUUID();
    const frame = { ...fields, type, client_id: key };
    const order = ++this.#order;
    const made = { key, lane: chatId, frame, order, durable: true, at: Date.now() };
    const entry = this.outbox.add(made);
    this.#keep(this.storage.putEntry(entry));
    this.#emit('outbox', entry);
    this.#pump();
    return entry;
  }

  #room() {
    if (this.outbox.entries.size < MAX_WAITING) return;
    throw new HikyakuError('overloaded', `${MAX_WAITING} requests wait for an answer`);
  }

  /** Send a message: `to` or `group_id`, `content`, and what else `chat` takes. */
  send({ to, group_id: groupId, ...fields }) {
    if (groupId !== undefined) {
      return this.write('group_chat', { ...fields, group_id: groupId }, groupChatId(groupId));
    }
    const chatId = this.user ? dmChatId(this.user, to) : `to ${to}`;
    return this.write('chat', { ...fields, to }, chatId);
  }

  edit(chatId, messageId, content) {
    return this.write('edit', { chat_id: chatId, message_id: messageId, content }, chatId);
  }

  delete(chatId, messageId) {
    return this.write('delete', { chat_id: chatId, message_id: messageId }, chatId);
  }

  react(chatId, messageId, emoji, remove = false) {
    const fields = { chat_id: chatId, message_id: messageId, emoji, remove };
    return this.write('react', fields, chatId);
  }

  /** Resolves with the `ack` of a write, or rejects when it is refused for good. */
  acked(entry) {
    return new Promise((resolve, reject) => this.#answers.set(entry.key, { resolve, reject }));
  }

  /** Send a write again that was refused. */
  retry(key) {
    const entry = this.outbox.again(key, ++this.#order);
    if (!entry) return;
    this.#keep(this.storage.putEntry(entry));
    this.#emit('outbox', entry);
    this.#pump();
  }

  /** Give up a write that is not on its way. */
  discard(key) {
    const entry = this.outbox.entries.get(key);
    if (!entry || entry.state === 'sent') return;
    this.#done(key);
    this.#settle(key, new HikyakuError('cancelled', 'it was given up'));
  }

  /** Watch users' presence, over reconnects; changes come as `presence`. */
  async watch(users) {
    const found = {};
    for (let at = 0; at < users.length; at += 500) {
      const part = users.slice(at, at + 500);
      for (const user of part) this.#watched.add(user);
      const { presence } = await this.request('presence_subscribe', { users: part });
      for (const [user, seen] of Object.entries(presence ?? {})) {
        found[user] = seen;
        this.#emit('presence', { type: 'presence', user_id: user, ...seen });
      }
    }
    return found;
  }

  /** Follow a large channel live, over reconnects. */
  open(chatId) {
    this.#opened.add(chatId);
    return this.#ready ? this.#open(chatId) : undefined;
  }

  async #open(chatId) {
    await this.request('open', { chat_id: chatId }).catch(() => {});
    this.#emit('activity', { type: 'activity', chat_id: chatId, seq: 0 });
  }

  close(chatId) {
    this.#opened.delete(chatId);
    if (this.#ready) this.request('close', { chat_id: chatId }).catch(() => {});
  }

  /** Tell that the user types; at most once in 3 s for a chat, and only while connected. */
  typing(chatId) {
    const now = performance.now();
    if (!this.#ready || now - (this.#typed.get(chatId) ?? -Infinity) < TYPING_EVERY_MS) return;
    this.#typed.set(chatId, now);
    this.#link.socket.send({ type: 'typing', ...addressee(chatId, this.user) });
  }

  /** Tell something that needs no answer, if connected. */
  tell(type, fields) {
    if (this.#ready) this.#link.socket.send({ type, ...fields });
  }

  /**
   * A request of the HTTP interface, with the user's token.
   * @param {string} method @param {string} path as `v1/notifications` @param {object} [body]
   * @returns {Promise<object>} rejects with a `HikyakuError`
   */
  async http(method, path, body) {
    const headers = { Authorization: `Bearer ${await this.bearer()}` };
    const init = { method, headers, body: body && JSON.stringify(body) };
    let answer;
    try {
      answer = await fetch(new URL(path, this.url), init);
    } catch (error) {
      throw new HikyakuError('offline', String(error.message), { retryable: true });
    }
    const found = await answer.json().catch(() => ({}));
    if (answer.ok) return found;
    throw HikyakuError.of({ code: 'http', message: `HTTP ${answer.status}`, ...found });
  }

  #settle(key, error, answer) {
    const waiting = this.#answers.get(key);
    this.#answers.delete(key);
    if (waiting && error) waiting.reject(error);
    else waiting?.resolve(answer);
  }

  #pump() {
    clearTimeout(this.#timer);
    if (!this.#started) return;
    const now = performance.now();
    for (const entry of this.outbox.expired(now)) {
      const [code, text] = this.#ready ? ['no_answer', 'no answer'] : ['offline', 'not connected'];
      this.#settle(entry.key, entry.error ?? new HikyakuError(code, text, { retryable: true }));
    }
    if (this.#ready) {
      for (const entry of this.outbox.takeDue(now)) {
        this.#link.socket.send(entry.frame);
        this.#link.socket.expect(ANSWER_MS);
        if (entry.durable) this.#emit('outbox', entry);
      }
    }
    const next = this.outbox.nextDue(this.#ready);
    if (next < Infinity) {
      const delay = Math.min(Math.max(next - now, 1), MAX_TIMER_MS);
      this.#timer = setTimeout(() => this.#pump(), delay);
    }
  }

  // --- the storage ---

  /** Something was changed that `records` gives: store it, with the cursor, a little later. */
  #changed() {
    this.#saving ||= setTimeout(() => this.#save(), SAVE_AFTER_MS);
  }

  /** The application has changed something that `records` gives. */
  touch() {
    this.#changed();
  }

  /** Store now what is to be stored: the page ends. */
  flush() {
    if (this.#saving) this.#save();
  }

  #save() {
    clearTimeout(this.#saving);
    this.#saving = 0;
    this.#keep(this.storage.save(this.#tracker.cursor, this.#records()));
  }

  #keep(promise) {
    promise.catch((error) => console.warn('hikyaku: not stored on this device:', error));
  }
}
