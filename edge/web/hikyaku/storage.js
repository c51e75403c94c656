/**
 * What outlives a page: the cursor, the outbox, and records of the application, in IndexedDB.
 *
 * One database for each user. Several tabs share it: each owns the outbox entries that it made, and
 * takes over those of a tab that is gone, which a Web Lock tells.
 */

/** Keeps nothing; for pages that need no offline outbox, and where IndexedDB is refused. */
export class MemoryStorage {
  /** @returns {Promise<{cursor: string|null, records: Map<string, any>}>} */
  async load() {
    return { cursor: null, records: new Map() };
  }

  /** Store the cursor, and with it in one transaction what the application has changed. */
  async save(cursor, records = new Map()) {}

  async putEntry(entry) {}

  async deleteEntry(key) {}

  /** Calls `take(entries)` with what earlier pages left, now and when another tab ends. */
  async adopt(take) {}

  async destroy() {}

  close() {}
}

const wait = (request) =>
  new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });

const finished = (transaction) =>
  new Promise((resolve, reject) => {
    transaction.oncomplete = () => resolve();
    transaction.onerror = transaction.onabort = () => reject(transaction.error);
  });

export class IndexedStorage {
  #database;
  #owner = crypto.getRandomValues(new Uint32Array(3)).join('-');
  #release = () => {};

  /** @param {IDBDatabase} database @param {string} name */
  constructor(database, name) {
    this.#database = database;
    this.name = name;
    database.onversionchange = () => database.close();
    globalThis.navigator?.locks?.request(this.#lock(this.#owner), () => {
      return new Promise((resolve) => (this.#release = resolve));
    });
  }

  /**
   * @param {string} name of the database, for example `hikyaku/alice`
   * @returns {Promise<IndexedStorage|MemoryStorage>} memory where IndexedDB cannot be had
   */
  static async open(name) {
    try {
      const request = indexedDB.open(name, 1);
      request.onupgradeneeded = () => {
        for (const store of ['meta', 'outbox', 'records']) request.result.createObjectStore(store);
      };
      return new IndexedStorage(await wait(request), name);
    } catch (error) {
      console.warn('hikyaku: nothing is kept over a reload:', error);
      return new MemoryStorage();
    }
  }

  #lock(owner) {
    return `${this.name}/${owner}`;
  }

  async #write(stores, change, commit = true) {
    const transaction = this.#database.transaction(stores, 'readwrite', { durability: 'relaxed' });
    change(...stores.map((store) => transaction.objectStore(store)));
    if (commit) transaction.commit?.(); // Or a page that ends right now would leave it undone.
    await finished(transaction);
  }

  async load() {
    const transaction = this.#database.transaction(['meta', 'records']);
    const records = transaction.objectStore('records');
    const [cursor, keys, values] = await Promise.all([
      wait(transaction.objectStore('meta').get('cursor')),
      wait(records.getAllKeys()),
      wait(records.getAll()),
    ]);
    return { cursor: cursor ?? null, records: new Map(keys.map((key, at) => [key, values[at]])) };
  }

  /** A record of `undefined` is deleted. */
  save(cursor, records = new Map()) {
    return this.#write(['meta', 'records'], (meta, store) => {
      if (cursor) meta.put(cursor, 'cursor');
      for (const [key, value] of records) {
        if (value === undefined) store.delete(key);
        else store.put(value, key);
      }
    });
  }

  putEntry({ key, lane, frame, order, at, attempts }) {
    const kept = { key, lane, frame, order, at, attempts, owner: this.#owner };
    return this.#write(['outbox'], (outbox) => outbox.put(kept, key));
  }

  deleteEntry(key) {
    return this.#write(['outbox'], (outbox) => outbox.delete(key));
  }

  async adopt(take) {
    const all = await wait(this.#database.transaction('outbox').objectStore('outbox').getAll());
    const locks = globalThis.navigator?.locks;
    const owners = new Set(all.map((entry) => entry.owner));
    owners.delete(this.#owner);
    if (!locks) return this.#takeOver(owners, take);
    // A lock is free once its tab is gone; of those that live on we hear when they end.
    for (const owner of owners) {
      locks.request(this.#lock(owner), () => this.#takeOver(new Set([owner]), take));
    }
    return undefined;
  }

  async #takeOver(owners, take) {
    try {
      const found = [];
      await this.#write(['outbox'], (outbox) => {
        outbox.getAll().onsuccess = ({ target }) => {
          for (const entry of target.result) {
            if (!owners.has(entry.owner)) continue;
            found.push(entry);
            outbox.put({ ...entry, owner: this.#owner }, entry.key);
          }
        };
      }, false);
      if (found.length) take(found.sort((a, b) => a.order - b.order));
    } catch (error) {
      console.warn('hikyaku: what another page left could not be read:', error);
    }
  }

  /** Forget the user on this device. */
  async destroy() {
    this.close();
    await wait(indexedDB.deleteDatabase(this.name));
  }

  close() {
    this.#release();
    this.#database.close();
  }
}
