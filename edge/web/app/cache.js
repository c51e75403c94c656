/** What of the state is kept on this device, so that a reload shows it at once. */

const KEPT = 40;
const PREFIX = 'chat/';
const FIELDS = ['kind', 'name', 'members', 'last', 'seq', 'joined', 'founded', 'unread', 'lastRead', 'muted'];

export class Cache {
  /** Ids of chats that differ from what is stored. */
  dirty = new Set();
  #store;

  constructor(store) {
    this.#store = store;
  }

  /** Records for the storage; called by the client, which stores the cursor with them. */
  records() {
    const found = new Map();
    for (const id of this.dirty) {
      const chat = this.#store.chats.get(id);
      found.set(PREFIX + id, chat && snapshot(chat));
    }
    this.dirty.clear();
    return found;
  }

  /** Fill the store with what was kept. */
  restore(records) {
    for (const [key, kept] of records) {
      if (!key.startsWith(PREFIX)) continue;
      const chat = this.#store.ensure(key.slice(PREFIX.length));
      for (const field of [...FIELDS, 'draft']) chat[field] = kept[field] ?? chat[field];
      chat.receipts = new Map(kept.receipts);
      if (!kept.items.length) continue;
      chat.timeline.merge(kept.items);
      chat.timeline.reachedEnd();
    }
  }
}

function snapshot(chat) {
  const { timeline } = chat;
  const kept = { draft: chat.draft, receipts: [...chat.receipts].slice(0, 100), items: [] };
  for (const field of FIELDS) kept[field] = chat[field];
  if (timeline.atEnd) kept.items = timeline.items.slice(-KEPT);
  return kept;
}
