/** The one state of the page, and who wants to know when a part of it changes. */

import { addressee, dmChatId } from '../hikyaku.js';
import { soon } from './dom.js';
import { Timeline } from './timeline.js';

/**
 * @typedef {object} Chat
 * @property {string} id
 * @property {'dm'|'group'|'channel'} kind
 * @property {string} name
 * @property {object|null} last the newest message, for the preview
 * @property {import('../hikyaku/outbox.js').Entry|null} waiting the newest message still to be sent
 * @property {number} seq of the newest event
 * @property {number} unread
 * @property {Timeline} timeline
 */

export class Store {
  me = '';
  connection = { phase: 'closed' };
  /** Whether the connection was lost and is not there again. */
  cut = false;
  /** Whether the server's list of chats has been read since this page was opened. */
  listed = false;
  moreChats = false;
  /** @type {Map<string, Chat>} */
  chats = new Map();
  /** @type {Map<string, {status: string, text: string, last_seen: number|null}>} */
  presence = new Map();
  self = { status: 'online', text: '' };
  /** What is on the screen. `panel` is 'thread', 'details', or ''. */
  route = { chat: '', thread: '', panel: '' };
  search = { query: '', hits: null, total: 0, busy: false, failed: '' };
  /** What this server does not know, and is not offered then; and what it is known to know. */
  lacks = new Set();
  knows = new Set();
  #wanting = new Map();

  /** Call `job` with the next frame whenever one of the topics has changed. */
  on(topics, job) {
    for (const topic of topics) {
      if (!this.#wanting.has(topic)) this.#wanting.set(topic, new Set());
      this.#wanting.get(topic).add(job);
    }
  }

  /** Say that a topic has changed: connection, chats, presence, route, search, timeline, … */
  changed(...topics) {
    for (const topic of topics) for (const job of this.#wanting.get(topic) ?? []) soon(job);
  }

  /** What is known of a person's presence: without a connection nothing of the present. */
  seen(user) {
    const seen = this.presence.get(user);
    return seen && this.cut && seen.status !== 'offline' ? { ...seen, status: 'unknown', text: '' } : seen;
  }

  /** @returns {Chat|undefined} that is open */
  get chat() {
    return this.chats.get(this.route.chat);
  }

  /** Chats, that of the newest event first. @returns {Chat[]} */
  get ordered() {
    return [...this.chats.values()]
      .filter((chat) => chat.seq || chat.kind !== 'dm' || chat.draft || chat.waiting || chat.id === this.route.chat)
      .sort((a, b) => waits(b) - waits(a) || rank(b) - rank(a) || (a.id < b.id ? -1 : 1));
  }

  get unread() {
    let count = 0;
    for (const chat of this.chats.values()) if (!chat.muted) count += chat.unread;
    return count;
  }

  /** The chat, made if it was not known. @returns {Chat} */
  ensure(id, fields = {}) {
    let chat = this.chats.get(id);
    if (!chat) {
      chat = {
        id,
        kind: id.startsWith('dm.') ? 'dm' : 'group',
        name: '',
        members: 2,
        last: null,
        waiting: null,
        seq: 0,
        unread: 0,
        newFrom: '',
        lastRead: '',
        timeline: new Timeline(),
        threads: new Map(),
        quotes: new Map(),
        typing: new Map(),
        receipts: new Map(),
        people: null,
        draft: '',
        muted: false,
        fresh: false,
        ...this.#target(id),
      };
      this.chats.set(id, chat);
    }
    Object.assign(chat, fields);
    chat.name ||= chat.other ?? chat.group;
    return chat;
  }

  #target(id) {
    const { to, group_id: group } = addressee(id, this.me);
    return group === undefined ? { other: to } : { group };
  }

  dm(user) {
    return this.ensure(dmChatId(this.me, user));
  }
}

const waits = (chat) => chat.waiting?.at ?? 0;

function rank(chat) {
  return chat.draft && !chat.seq ? Infinity : chat.seq;
}
