/** The messages of a chat that are here, in order of `seq`, and the rows that a list shows of them. */

const GROUPED_MS = 5 * 60_000;
const CHANGES = 200;
const KEPT = 300;

export class Timeline {
  /** Messages, and notices of who came and went. @type {object[]} */
  items = [];
  #ids = new Map();
  #sent = new Map();
  /** Messages on their way to the site where the chat lives, by id. @type {Map<string, object>} */
  travelling = new Map();
  /** Nothing older, nothing newer is on the server. */
  atStart = false;
  atEnd = false;
  loading = '';
  failed = '';
  why = '';
  /** Changes of late, for a page of history may be older than they are. */
  #changes = [];
  #late = [];

  get(id) {
    return this.#ids.get(id);
  }

  has(message) {
    return this.#ids.has(message.id) || this.#sent.has(sender(message));
  }

  get messages() {
    return this.items.filter((item) => !item.notice);
  }

  get first() {
    return this.items.find((item) => !item.notice);
  }

  get last() {
    return this.items.findLast((item) => !item.notice);
  }

  /** A live message or notice: it goes to the end, if the end is here. */
  append(item) {
    if (this.atEnd) this.#merge([item]);
    else this.#late = [...this.#late.slice(1 - CHANGES), item];
  }

  /** A message that has no place in the chat yet. */
  travels(item) {
    if (!this.has(item)) this.travelling.set(item.id, item);
  }

  /** A page of history, in any order. */
  merge(page) {
    this.#merge(page);
    for (const change of this.#changes) this.#apply(change);
  }

  /** The end is here now: what came live meanwhile follows. */
  reachedEnd() {
    this.atEnd = true;
    const last = this.last?.seq ?? 0;
    this.#merge(this.#late.filter((item) => item.seq > last || !last));
    this.#late = [];
  }

  /** Nobody looks at it: keep the newest. */
  trim() {
    if (this.atEnd && this.items.length > 2 * KEPT) this.forgetBefore(this.items.at(-KEPT).seq);
  }

  /** What is older than this may have a hole: it is read again when it is wanted. */
  forgetBefore(seq) {
    const kept = this.items.filter((item) => item.seq >= seq);
    const { atEnd } = this;
    this.clear();
    this.#merge(kept);
    this.atEnd = atEnd;
  }

  /** Show another place: forget what is here. */
  clear() {
    this.items = [];
    this.#ids.clear();
    this.#sent.clear();
    this.atStart = this.atEnd = false;
  }

  #merge(list) {
    let sorted = true;
    for (const item of list) {
      this.travelling.delete(item.id);
      const known = this.#ids.get(item.id);
      if (known) {
        Object.assign(known, item);
        continue;
      }
      // The same message stored twice: history keeps the first.
      if (!item.notice && this.#sent.has(sender(item))) continue;
      sorted &&= !this.items.length || this.items[this.items.length - 1].seq < item.seq;
      this.items.push({ ...item });
      this.#ids.set(item.id, this.items[this.items.length - 1]);
      if (!item.notice && item.client_id) this.#sent.set(sender(item), item.id);
    }
    if (!sorted) this.items.sort((a, b) => a.seq - b.seq);
  }

  /** An edit, deletion or reaction. @returns {boolean} whether it concerns a message here */
  change(event) {
    this.#changes = [...this.#changes.slice(1 - CHANGES), event];
    return this.#apply(event);
  }

  #apply(event) {
    const message = this.#ids.get(event.id);
    if (!message) return false;
    changed(message, event);
    return true;
  }
}

const sender = (message) => `${message.client_id}\n${message.from}`;

/** Make a change to a message. Idempotent; in the order of `seq` the last one stands. */
export function changed(message, event) {
  switch (event.type) {
    case 'message_edited':
      if (!message.deleted) {
        Object.assign(message, { content: event.content, edited_at: event.edited_at });
      }
      break;
    case 'message_deleted':
      Object.assign(message, { deleted: true, content: '', attachments: [], files: [] });
      message.reactions = {};
      break;
    case 'reaction': {
      const reactions = { ...message.reactions };
      const users = new Set(reactions[event.emoji]);
      if (event.removed) users.delete(event.from);
      else users.add(event.from);
      if (users.size) reactions[event.emoji] = [...users];
      else delete reactions[event.emoji];
      message.reactions = reactions;
      break;
    }
    default:
  }
}

/**
 * A message with the own changes that are still on their way.
 * @param {object} message @param {import('../hikyaku/outbox.js').Entry[]} writes
 */
export function withPending(message, writes, me) {
  let shown = message;
  for (const { frame, state, at } of writes) {
    if (frame.message_id !== message.id || state === 'failed') continue;
    if (shown === message) shown = { ...message, pending: true };
    if (frame.type === 'edit') {
      changed(shown, { type: 'message_edited', content: frame.content, edited_at: at });
    } else if (frame.type === 'delete') {
      changed(shown, { type: 'message_deleted' });
    } else if (frame.type === 'react') {
      const { emoji, remove } = frame;
      changed(shown, { type: 'reaction', emoji, removed: remove, from: me });
    }
  }
  return shown;
}

/** A message that is still in the outbox, as a row shows it. */
export function provisional(entry, me) {
  const { frame, state, at, error, key } = entry;
  return { ...frame, id: null, seq: Infinity, from: me, timestamp: at, client_id: key, state, error };
}

/**
 * The rows of a conversation or of a thread.
 * @param {Timeline} timeline
 * @param {object} view
 * @param {import('../hikyaku/outbox.js').Entry[]} view.writes of this chat
 * @param {string} view.me
 * @param {string|null} [view.thread] the root whose replies are shown; null for the conversation
 * @param {string} [view.newFrom] id of the first message that was unread
 */
export function rows(timeline, { writes, me, thread = null, newFrom = '' }) {
  const found = [];
  let before = null;
  let day = '';
  const changes = writes.filter((entry) => entry.frame.message_id);
  const add = (item) => {
    const today = new Date(item.timestamp).toDateString();
    if (today !== day && item.timestamp) {
      day = today;
      before = null;
      found.push({ key: `day ${today}`, kind: 'day', timestamp: item.timestamp });
    }
    if (newFrom && item.id === newFrom) {
      before = null;
      found.push({ key: 'new', kind: 'new' });
    }
    if (item.notice) {
      before = null;
      found.push({ key: `notice ${item.seq}`, kind: 'notice', item });
      return;
    }
    const head =
      !before ||
      before.from !== item.from ||
      item.timestamp - before.timestamp > GROUPED_MS ||
      Boolean(item.reply_to);
    before = item;
    found.push({ key: item.client_id ? sender(item) : item.id, kind: 'message', item, head });
  };
  for (const item of timeline.items) {
    if (thread === null ? item.thread : item.thread !== thread && item.id !== thread) continue;
    add(changes.length ? withPending(item, changes, me) : item);
  }
  if (!timeline.atEnd) return divided(found, thread);
  const shown = new Set();
  for (const item of timeline.travelling.values()) {
    if ((item.thread ?? null) !== thread) continue;
    shown.add(sender(item));
    add({ ...item, seq: Infinity, pending: item.state !== 'failed' });
  }
  for (const entry of writes) {
    if (entry.frame.message_id) continue;
    if ((entry.frame.thread ?? null) !== thread) continue;
    const own = { client_id: entry.key, from: me };
    if (!timeline.has(own) && !shown.has(sender(own))) add(provisional(entry, me));
  }
  return divided(found, thread);
}

/** In a thread its replies stand below a line, the first of them with who wrote it. */
function divided(rows, thread) {
  const at = thread === null ? -1 : rows.findIndex((row) => row.item?.id === thread) + 1;
  const replies = at > 0 ? rows.slice(at).filter((row) => row.kind === 'message') : [];
  if (!replies.length) return rows;
  replies[0].head = true;
  rows.splice(at, 0, { key: 'replies', kind: 'replies', n: replies.length });
  return rows;
}

/** Where the unread messages begin, if that is here. @returns {string} a message id, or '' */
export function firstUnread(timeline, unread, me) {
  let left = unread;
  for (let at = timeline.items.length - 1; at >= 0 && left > 0; at--) {
    const item = timeline.items[at];
    if (item.notice || item.from === me) continue;
    left--;
    if (left === 0) return item.id;
  }
  return '';
}
