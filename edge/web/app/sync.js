/** What the server tells becomes state. Every event may come twice, and after a page of history. */

import { HikyakuError } from '../hikyaku.js';
import { t } from './i18n.js';
import { changed } from './timeline.js';

const ACTIVITY_AFTER_MS = 500;

/** @param {import('./app.js').App} app */
export function follow(app) {
  const { client, store } = app;
  const newsIn = new Set();
  let looking = 0;

  const chatOf = (event) => store.ensure(event.chat_id);

  const touched = (chat, ...topics) => {
    app.cache.dirty.add(chat.id);
    client.touch();
    store.changed(...topics);
  };

  function message(event) {
    const chat = chatOf(event);
    const item = { ...event };
    delete item.type;
    const timelines = [chat.timeline];
    if (item.thread && chat.threads.has(item.thread)) timelines.push(chat.threads.get(item.thread));
    const root = item.thread && chat.timeline.get(item.thread);
    if (root && !chat.timeline.has(item)) root.replies = (root.replies ?? 0) + 1;
    for (const each of timelines) each.append(item);
    if (store.route.chat !== chat.id) chat.timeline.trim();
    chat.typing.delete(item.from);
    if (chat.other && !app.watched.has(chat.other)) app.watchPeople();
    if (item.seq > chat.seq) {
      chat.seq = item.seq;
      chat.last = item;
      if (item.from !== store.me) arrived(chat, item);
    }
    touched(chat, 'chats', 'timeline', 'typing');
  }

  function arrived(chat, item) {
    if (app.reading(chat)) app.read(chat);
    else chat.unread++;
    app.delivered(chat);
    app.notify.message(chat, item);
  }

  function change(event) {
    const chat = chatOf(event);
    const known = chat.timeline.get(event.id);
    if (event.type === 'message_deleted' && known?.thread && !known.deleted) {
      const root = chat.timeline.get(known.thread);
      if (root?.replies) root.replies--;
    }
    for (const each of [chat.timeline, ...chat.threads.values()]) each.change(event);
    if (chat.last?.id === event.id) changed(chat.last, event);
    if (chat.quotes.has(event.id)) changed(chat.quotes.get(event.id), event);
    touched(chat, 'chats', 'timeline');
  }

  function readReceipt(event) {
    const chat = chatOf(event);
    if (event.reader_id !== store.me) {
      receipt(chat, event.reader_id, 'read', event.read_seq, event.last_read_msg_id);
      return;
    }
    chat.lastRead = event.last_read_msg_id;
    if ((event.read_seq ?? 0) >= chat.seq) chat.unread = 0;
    else if (chat.unread) app.countUnread([chat.id]);
    touched(chat, 'chats');
  }

  function receipt(chat, user, kind, seq, id) {
    const at = seq ?? chat.timeline.get(id)?.seq ?? 0;
    const known = chat.receipts.get(user) ?? { read: 0, delivered: 0 };
    if (at <= known[kind]) return;
    chat.receipts.set(user, { ...known, [kind]: at });
    touched(chat, 'timeline');
  }

  function typing(event) {
    const chat = store.chats.get(event.chat_id);
    if (!chat || event.from === store.me) return;
    const until = Date.now() + event.expires_in;
    chat.typing.set(event.from, until);
    store.changed('typing', 'chats');
    setTimeout(() => {
      if (chat.typing.get(event.from) !== until) return;
      chat.typing.delete(event.from);
      store.changed('typing', 'chats');
    }, event.expires_in);
  }

  function membership(event) {
    if (event.type === 'member_removed' && event.users.includes(store.me)) {
      app.gone(event.chat_id);
      return;
    }
    const chat = chatOf(event);
    if (event.name) chat.name = event.name;
    if (event.kind) chat.kind = event.kind;
    if (event.size) chat.members = event.size;
    chat.joined ??= event.seq;
    const { type, seq, by, users, name, roles } = event;
    // Who is among those they add has made the group, or has joined a channel.
    const made =
      type === 'member_added' && users.includes(by) &&
      (users.length > 1 || event.size === 1 || chat.kind !== 'channel' || Boolean(chat.founded));
    if (type !== 'group_updated' || name || roles) {
      const notice = { notice: type, id: `n${seq}`, seq, by, users, name, roles, made };
      chat.timeline.append({ ...notice, timestamp: Date.now() });
    }
    if (type !== 'group_updated' || roles) {
      if (store.route.chat === chat.id) app.loadPeople(chat);
      else chat.people = null;
    }
    touched(chat, 'chats', 'timeline', 'people');
  }

  function activity({ chat_id: id, seq }) {
    const chat = store.chats.get(id);
    if (!chat) return;
    if (store.route.chat === id && chat.timeline.atEnd) app.loadNewest(chat);
    else if (seq) chat.fresh = false;
    newsIn.add(id);
    looking ||= setTimeout(() => {
      looking = 0;
      app.countUnread([...newsIn]);
      newsIn.clear();
    }, ACTIVITY_AFTER_MS);
  }

  /** What was left out of the catch-up, or all if the log is another one, has to be read again. */
  function caughtUp({ recovered, missing }) {
    const holes = new Map((missing ?? []).map((range) => [range.chat_id, range.to_seq]));
    if (!recovered) for (const id of store.chats.keys()) holes.set(id, Infinity);
    if (!holes.size) return;
    store.listed = false;
    for (const [id, seq] of holes) {
      const chat = store.chats.get(id);
      if (!chat) continue;
      chat.fresh = false;
      chat.threads.clear();
      chat.timeline.forgetBefore(seq + 1);
      if (!recovered) Object.assign(chat, { seq: 0, last: null });
    }
    const { chat, route } = store;
    if (route.thread && holes.has(chat.id)) app.openThread(chat, route.thread);
  }

  /** A message on its way to the site where the chat lives, ours or another's here. */
  function travels(chatId, item) {
    const chat = chatOf({ ...item, chat_id: chatId });
    for (const each of [chat.timeline, chat.threads.get(item.thread)]) each?.travels(item);
    touched(chat, 'timeline');
  }

  /** The site where the chat lives did not take a write of ours: it stays, with the reason. */
  function refused({ chat_id: chatId, id, code, message: reason }) {
    const error = HikyakuError.of({ code, message: reason });
    app.toast(t('failed.send', { why: app.why(error) }));
    const chat = store.chats.get(chatId);
    if (!chat) return;
    for (const each of [chat.timeline, ...chat.threads.values()]) {
      const item = each.travelling.get(id);
      if (item) each.travelling.set(id, { ...item, state: 'failed', error });
    }
    touched(chat, 'timeline');
  }

  function acked({ message_id: id, seq, timestamp, chat_id: chatId, status, entry }) {
    const { frame } = entry;
    if (status === 'accepted') {
      const item = { ...frame, id, timestamp, from: store.me };
      if (!frame.message_id) travels(chatId, item);
      return;
    }
    if (frame.message_id) {
      // The event of the change comes as well, but for a large channel that is not open.
      const type = { edit: 'message_edited', delete: 'message_deleted' }[frame.type] ?? 'reaction';
      const { content, emoji, remove } = frame;
      const done = { type, id, seq, chat_id: chatId, from: store.me, content, emoji };
      change({ ...done, removed: remove, edited_at: timestamp });
      return;
    }
    message({ ...frame, id, seq, timestamp, chat_id: chatId, from: store.me });
  }

  client.on('state', (state) => {
    store.connection = state;
    if (state.phase === 'online') app.online();
    const cut = state.phase === 'online' ? false : ['waiting', 'stopped'].includes(state.phase) || store.cut;
    if (cut !== store.cut) store.changed('presence', 'chats');
    store.cut = cut;
    store.changed('connection');
  });
  client.on('caught_up', caughtUp);
  client.on('chat', message);
  client.on('group_chat', message);
  client.on('provisional', ({ chat_id: chatId, event }) => travels(chatId, event));
  client.on('write_refused', refused);
  client.on('message_edited', change);
  client.on('message_deleted', change);
  client.on('reaction', change);
  client.on('read_receipt', readReceipt);
  client.on('delivery_receipt', (event) => {
    const { user_id: user, delivered_seq: seq, last_delivered_msg_id: id } = event;
    if (user !== store.me) receipt(chatOf(event), user, 'delivered', seq, id);
  });
  client.on('typing', typing);
  client.on('presence', ({ user_id: user, status, text, last_seen: seen }) => {
    store.presence.set(user, { status, text: text ?? '', last_seen: seen });
    if (user === store.me) store.self = { ...store.self, status, text: text ?? '' };
    store.changed('presence', 'chats');
  });
  client.on('member_added', membership);
  client.on('member_removed', membership);
  client.on('group_updated', membership);
  client.on('activity', activity);
  client.on('ack', acked);
  client.on('outbox', (entry) => {
    if (entry.state === 'failed' && entry.frame.message_id) app.writeFailed(entry);
    if (!entry.frame.message_id) {
      const chat = store.chats.get(entry.lane) ?? (entry.lane.startsWith('dm.') && store.ensure(entry.lane));
      const waits = (each) => each.lane === chat.id && !each.frame.message_id && each.state !== 'failed';
      if (chat) chat.waiting = client.outbox.writes.findLast(waits) ?? null;
    }
    store.changed('timeline', 'chats');
  });
}
