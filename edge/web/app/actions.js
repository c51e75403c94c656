/** What a person can do, and what has to be asked for it. Each is a method of `App`. */

import { HikyakuError, addressee } from '../hikyaku.js';
import { Timeline, firstUnread } from './timeline.js';

const PAGE = 50;
const CHATS = 100;
const DELIVERED_AFTER_MS = 300;
const WATCHED = 1900;
const MARKS = /[\uE000\uE001]/g;

const seqs = (page) => page.map((message) => message.seq);

/** @type {ThisType<import('./app.js').App>} */
export const actions = {
  // --- the list of chats ---

  /** Called when the connection has caught up. */
  async online() {
    const { chat, route } = this.store;
    if (!this.store.listed) {
      await this.attempt(() => this.loadChats());
      await this.notify.begin();
    }
    if (chat && !chat.fresh) await this.attempt(() => this.refresh(chat));
    // A thread that was asked for without a connection may have been given up meanwhile.
    if (chat?.threads.get(route.thread)?.failed) await this.openThread(chat, route.thread);
    this.watchPeople();
    this.tellDelivered();
    this.store.changed('timeline'); // What is before one's eyes counts as read from now on.
  },

  async loadChats(after) {
    const { chats, more } = await this.client.request('chats', { limit: CHATS, after });
    for (const each of chats) this.listed(each);
    this.store.listed = true;
    this.store.moreChats = Boolean(more) && chats.length ? chats.at(-1).chat_id : '';
    this.client.touch();
    this.store.changed('chats', 'people');
    this.watchPeople();
  },

  listed(found) {
    const chat = this.store.ensure(found.chat_id, { kind: found.kind, members: found.members });
    if (found.name) chat.name = found.name;
    chat.lastRead = found.last_read_msg_id ?? chat.lastRead;
    if (found.receipts) this.store.knows.add('receipts');
    for (const [user, at] of Object.entries(found.receipts ?? {})) this.receipt(chat, user, at);
    const last = found.last_message;
    if (last && last.seq < chat.seq) this.countUnread([chat.id]);
    else {
      if (last) Object.assign(chat, { last, seq: last.seq });
      chat.unread = this.reading(chat) ? 0 : found.unread;
      if (found.unread) this.delivered(chat);
    }
    this.cache.dirty.add(chat.id);
  },

  receipt(chat, user, { read_seq: read = 0, delivered_seq: delivered = 0 }) {
    if (user === this.store.me) return;
    const known = chat.receipts.get(user) ?? { read: 0, delivered: 0 };
    const most = { read: Math.max(read, known.read) };
    most.delivered = Math.max(delivered, known.delivered, most.read);
    chat.receipts.set(user, most);
  },

  async countUnread(ids) {
    const known = ids.filter((id) => this.store.chats.has(id)).slice(0, 200);
    if (!known.length) return;
    const { counts } = await this.client.request('unread', { chat_ids: known });
    for (const [id, count] of Object.entries(counts)) {
      const chat = this.store.chats.get(id);
      if (chat) chat.unread = this.reading(chat) ? 0 : count;
    }
    this.store.changed('chats');
  },

  /** Presence of those whom one talks to, and of the members of the open group. */
  watchPeople() {
    const wanted = new Set([this.store.me]);
    for (const chat of this.store.chats.values()) if (chat.other) wanted.add(chat.other);
    for (const { user_id: user } of this.store.chat?.people ?? []) wanted.add(user);
    const users = [...wanted].filter((user) => !this.watched.has(user));
    users.length = Math.min(users.length, 500, Math.max(WATCHED - this.watched.size, 0));
    if (!users.length || this.store.connection.phase !== 'online') return;
    for (const user of users) this.watched.add(user);
    this.attempt(async () => {
      const found = await this.client.watch(users);
      // Those with whom there is no message yet are left out: ask again when there is one.
      for (const user of users) if (!(user in found)) this.watched.delete(user);
    }, { quiet: true });
  },

  // --- a conversation ---

  /** The route leads to a chat: load what is not here, and follow it. */
  async opened(chat) {
    if (chat.kind === 'channel') this.client.open(chat.id);
    if (!chat.unread) chat.newFrom = '';
    else if (chat.timeline.atEnd && chat.fresh) this.markNew(chat);
    if (!chat.fresh) await this.attempt(() => this.refresh(chat));
    this.watchPeople();
  },

  markNew(chat) {
    chat.newFrom = firstUnread(chat.timeline, chat.unread, this.store.me);
  },

  async refresh(chat) {
    if (this.store.connection.phase !== 'online') return;
    const { unread } = chat;
    await this.loadNewest(chat);
    if (chat.timeline.failed) return;
    chat.fresh = true;
    if (unread && !chat.newFrom) {
      chat.newFrom = firstUnread(chat.timeline, unread, this.store.me);
      this.store.changed('timeline');
    }
    if (chat.kind !== 'dm' && !chat.people) this.loadPeople(chat);
    this.loadReceipts(chat);
  },

  async loadReceipts(chat) {
    if (chat.members > 500) return;
    const found = await this.optional('receipts', { chat_id: chat.id });
    for (const [user, at] of Object.entries(found?.receipts ?? {})) this.receipt(chat, user, at);
    if (!found) return;
    this.store.knows.add('receipts');
    this.store.changed('timeline');
  },

  /** The newest page. Where it does not join what is here, it takes its place. */
  async loadNewest(chat) {
    const { timeline } = chat;
    await this.loading(timeline, 'newest', async () => {
      const { messages, more } = await this.history(chat, { limit: PAGE });
      const oldest = Math.min(...seqs(messages));
      const joins = timeline.atEnd && (timeline.last?.seq ?? 0) >= oldest;
      if (!joins) timeline.clear();
      timeline.merge(messages);
      timeline.reachedEnd();
      if (!more) timeline.atStart = true;
      this.cache.dirty.add(chat.id);
    });
  },

  async loadOlder(chat, timeline = chat.timeline, thread = undefined) {
    if (timeline.atStart || !timeline.first) return;
    await this.loading(timeline, 'older', async () => {
      const before = timeline.first.id;
      const { messages, more } = await this.history(chat, { before, thread, limit: 2 * PAGE });
      timeline.merge(messages);
      if (!more) timeline.atStart = true;
    });
  },

  async loadNewer(chat) {
    const { timeline } = chat;
    if (timeline.atEnd || !timeline.last) return;
    await this.loading(timeline, 'newer', async () => {
      const after = timeline.last.id;
      const { messages, more } = await this.history(chat, { after, limit: 2 * PAGE });
      timeline.merge(messages);
      if (!more) timeline.reachedEnd();
    });
  },

  history(chat, fields) {
    return this.client.request('history', { chat_id: chat.id, ...fields });
  },

  /**
   * One load at a time for each timeline: what comes by scrolling is left out meanwhile, the rest
   * waits. A failure is shown where the messages would be.
   */
  async loading(timeline, what, load) {
    const scrolled = what === 'older' || what === 'newer';
    while (timeline.loading) {
      if (scrolled) return;
      await timeline.loaded;
    }
    timeline.loading = what;
    let done;
    timeline.loaded = new Promise((resolve) => (done = resolve));
    timeline.failed = '';
    this.store.changed('timeline');
    try {
      await load();
    } catch (error) {
      if (!(error instanceof HikyakuError)) throw error;
      Object.assign(timeline, { failed: what, why: this.why(error) });
    } finally {
      timeline.loading = '';
      done();
      this.store.changed('timeline');
    }
  },

  /** Have a message and what is around it. @returns {Promise<boolean>} whether it is there */
  async loadAround(chat, id) {
    const { timeline } = chat;
    if (timeline.get(id)) return true;
    await this.loading(timeline, 'around', async () => {
      const newer = await this.history(chat, { after: id, limit: PAGE });
      const before = newer.messages.at(-1)?.id;
      const older = await this.history(chat, { before, limit: PAGE });
      timeline.clear();
      timeline.merge([...newer.messages, ...older.messages]);
      timeline.atStart = !older.more;
      if (!newer.more) timeline.reachedEnd();
    });
    return Boolean(timeline.get(id));
  },

  /** A message that is quoted, wherever it is; null if there is none. */
  async quote(chat, id) {
    if (chat.quotes.has(id)) return;
    chat.quotes.set(id, { loading: true });
    const found = await this.attempt(async () => {
      const newer = await this.history(chat, { after: id, limit: 1 });
      const before = newer.messages.at(-1)?.id;
      const { messages } = await this.history(chat, { before, limit: 1 });
      return messages.find((message) => message.id === id);
    }, { quiet: true });
    chat.quotes.set(id, found ?? { gone: true });
    this.store.changed('timeline');
  },

  async openThread(chat, root) {
    let timeline = chat.threads.get(root);
    if (!timeline) chat.threads.set(root, (timeline = new Timeline()));
    if (timeline.atEnd && chat.fresh) return;
    const known = chat.timeline.get(root);
    if (known) timeline.merge([known]);
    else if (await this.loadAround(chat, root)) timeline.merge([chat.timeline.get(root)]);
    await this.loading(timeline, 'newest', async () => {
      const { messages, more } = await this.history(chat, { thread: root, limit: 2 * PAGE });
      timeline.merge(messages);
      timeline.reachedEnd();
      timeline.atStart = !more;
    });
  },

  // --- reading ---

  /** Whether a person has the end of this chat before their eyes. */
  reading(chat) {
    const { route } = this.store;
    return route.chat === chat.id && this.atEnd && document.hasFocus() && !document.hidden;
  },

  /** The chat has been read as far as it is here. */
  read(chat) {
    const last = chat.last?.id;
    const fromOther = chat.unread || chat.last?.from !== this.store.me;
    if (!last || last === chat.lastRead || !fromOther) return;
    if (this.store.connection.phase !== 'online') return;
    chat.unread = 0;
    chat.lastRead = last;
    this.client.tell('read_receipt', { chat_id: chat.id, last_read_msg_id: last });
    this.cache.dirty.add(chat.id);
    this.client.touch();
    this.store.changed('chats');
  },

  /** Say, soon, that the chat's newest message is on this device. */
  delivered(chat) {
    if (chat.members > 50) return;
    this.undelivered.add(chat);
    this.delivering ||= setTimeout(() => {
      this.delivering = 0;
      this.tellDelivered();
    }, DELIVERED_AFTER_MS);
  },

  tellDelivered() {
    const { connection, knows } = this.store;
    if (connection.phase !== 'online' || !knows.has('receipts')) return;
    for (const { id, last } of this.undelivered) {
      if (!last) continue;
      this.client.tell('delivery_receipt', { chat_id: id, last_delivered_msg_id: last.id });
    }
    this.undelivered.clear();
  },

  // --- writing ---

  /** @returns {Promise<object|undefined>} what waits now, or undefined if too much does */
  send(chat, fields) {
    return this.attempt(() => {
      const sent = this.client.send({ ...addressee(chat.id, this.store.me), ...fields });
      Object.assign(chat, { draft: '', newFrom: '' });
      return sent;
    });
  },

  react(chat, message, emoji) {
    const mine = message.reactions?.[emoji]?.includes(this.store.me) ?? false;
    this.attempt(() => this.client.react(chat.id, message.id, emoji, mine));
  },

  writeFailed(entry) {
    this.client.discard(entry.key);
    this.toast(this.t(`failed.${entry.frame.type}`, { why: this.why(entry.error) }));
  },

  // --- groups ---

  async loadPeople(chat) {
    if (chat.kind === 'dm') return;
    const found = await this.attempt(async () => {
      const people = [];
      for (let after; people.length < 500; after = people.at(-1).user_id) {
        const asked = { group_id: chat.group, limit: 500, after };
        const { members, more } = await this.client.request('group_members', asked);
        people.push(...members);
        if (!more || !members.length) break;
      }
      return people;
    }, { quiet: true });
    chat.people = found ?? chat.people ?? [];
    this.watchPeople();
    this.store.changed('people', 'timeline');
  },

  async createGroup({ name, members, kind }) {
    const fields = { client_id: crypto.randomUUID(), name, members, kind };
    const { group } = await this.client.request('group_create', fields);
    const chat = this.known(group);
    chat.founded = group.members;
    // It may have been told before the answer was here.
    for (const item of chat.timeline.items) if (item.users?.includes(this.store.me)) item.made = true;
    this.store.changed('timeline');
    return chat;
  },

  async joinChannel(id) {
    const { group } = await this.client.request('group_join', { group_id: id });
    return this.known(group);
  },

  known({ chat_id: id, name, kind, member_count: members }) {
    const chat = this.store.ensure(id, { name, kind, members });
    this.store.changed('chats');
    return chat;
  },

  /** Change a group: `verb` is add, remove or update. */
  async changeGroup(chat, verb, fields) {
    const asked = { group_id: chat.group, ...fields };
    const { group } = await this.client.request(`group_${verb}`, asked);
    if (group) this.known(group);
    if (verb !== 'update' || fields.roles) await this.loadPeople(chat);
  },

  async mute(chat, muted) {
    if (chat.group) await this.changeGroup(chat, 'update', { mute: muted });
    else await this.client.http('PUT', 'v1/notifications', { mute: { [chat.id]: muted } });
    chat.muted = muted;
    this.cache.dirty.add(chat.id);
    this.client.touch();
    this.store.changed('chats', 'people');
  },

  async leave(chat) {
    await this.client.request('group_leave', { group_id: chat.group });
    this.gone(chat.id);
  },

  /** The chat is not ours any more. */
  gone(id) {
    this.store.chats.delete(id);
    this.cache.dirty.add(id);
    this.client.touch();
    if (this.store.route.chat === id) this.go({});
    this.store.changed('chats');
  },

  // --- search ---

  /** Messages with these words, in all chats or one; adds to what was found with `more`. */
  async searchMessages(query, { chatId, more = false } = {}) {
    const { search } = this.store;
    const offset = more ? search.hits.length : 0;
    Object.assign(search, { query, busy: true, failed: '', hits: more ? search.hits : null });
    this.store.changed('search');
    try {
      const asked = { query, chat_id: chatId, limit: 20, offset };
      const { hits, total } = await this.client.request('search', asked);
      if (search.query !== query) return;
      for (const hit of hits) hit.plain = (hit.highlight ?? hit.content).replace(MARKS, '');
      Object.assign(search, { hits: [...(more ? search.hits : []), ...hits], total, busy: false });
    } catch (error) {
      if (error.code === 'unknown_type') this.store.lacks.add('search');
      if (search.query === query) Object.assign(search, { busy: false, failed: this.why(error) });
    }
    this.store.changed('search');
  },

  // --- what may fail ---

  /** Ask what an older server may not know; null then, and it is not asked again. */
  async optional(type, fields) {
    if (this.store.lacks.has(type)) return null;
    try {
      return await this.client.request(type, fields);
    } catch (error) {
      if (error.code === 'unknown_type') this.store.lacks.add(type);
      return null;
    }
  },

  /** Do it; if that fails, say so (unless `quiet`) and give undefined. */
  async attempt(act, { quiet = false } = {}) {
    try {
      return await act();
    } catch (error) {
      if (!(error instanceof HikyakuError)) throw error;
      if (!quiet && error.code !== 'stopped') this.toast(this.why(error));
      return undefined;
    }
  },

  /** Why the connection has ended for good. */
  stopped({ code, reason }) {
    const known = this.t(`stopped.${code}`);
    return known.startsWith('stopped.') ? this.t('stopped', { reason: reason ?? code }) : known;
  },

  /** An error in words for a person. */
  why(error) {
    const known = this.t(`error.${error.code}`);
    return known.startsWith('error.') ? error.message : known;
  },
};
