/** What all parts of the page share. `docs/web.md` says how they fit together. */

import { Client, IndexedStorage } from '../hikyaku.js';
import { change, device, forget, tokenSource } from './account.js';
import { actions } from './actions.js';
import { Cache } from './cache.js';
import { soon } from './dom.js';
import { Files } from './files.js';
import { speak, t } from './i18n.js';
import { Idle } from './idle.js';
import { Notifier } from './notify.js';
import { address, place } from './route.js';
import { Store } from './store.js';
import { follow } from './sync.js';
import { shortcuts } from './keys.js';
import { screen } from '../views/screen.js';
import { toast, untoast } from '../views/parts.js';

const SEARCH_AFTER_MS = 250;

/** Where the server is: this client may be served below any path. */
const base = new URL('.', location.href);

/** Everything that belongs to one signed-in user on this page. */
export class App {
  t = t;
  store = new Store();
  watched = new Set();
  undelivered = new Set();
  /** Whether the newest message of the open chat is in sight; the conversation says so. */
  atEnd = false;
  #trail = [];

  /** @param {import('./account.js').Account} account */
  static async open(account) {
    const app = new App();
    app.account = account;
    app.store.me = account.user;
    const storage = await IndexedStorage.open(`hikyaku/${account.user}`);
    app.cache = new Cache(app.store);
    const { cursor, records } = await storage.load();
    app.cache.restore(records);
    app.client = new Client({
      url: base,
      token: tokenSource(account, base),
      user: account.user,
      device: device(),
      storage,
      records: () => app.cache.records(),
    });
    app.files = new Files(app.client, base);
    app.notify = new Notifier(app, base);
    follow(app);
    // The connection is made while the screen is drawn.
    await app.client.start(cursor);
    screen(app);
    shortcuts(app);
    window.addEventListener('hashchange', () => app.#routed());
    app.#routed();
    app.#watchNetwork();
    app.idle = new Idle(app);
    return app;
  }

  #watchNetwork() {
    const { client, store } = this;
    window.addEventListener('online', () => client.probe());
    window.addEventListener('offline', () => client.probe());
    window.addEventListener('focus', () => store.chat && store.changed('timeline'));
    window.addEventListener('pagehide', () => client.flush());
    document.addEventListener('visibilitychange', () => {
      if (document.hidden) {
        client.flush();
        return;
      }
      client.probe();
      store.changed('timeline', 'chats');
    });
    client.on('state', (state) => {
      if (state.phase !== 'stopped') return;
      if (state.code === 4001 || state.code === 4002) this.signOut('ended');
      else this.toast(this.stopped(state));
    });
    const others = new BroadcastChannel('hikyaku');
    others.onmessage = ({ data }) => data === this.store.me && this.signOut('elsewhere', false);
    this.others = others;
  }

  /** Forget the user on this device, and begin anew. */
  async signOut(why = '', tellOthers = true) {
    if (tellOthers && !why) this.others.postMessage(this.store.me);
    await this.notify.stop().catch(() => {});
    this.client.stop();
    forget();
    if (!why) await this.client.storage.destroy();
    sessionStorage.setItem('hikyaku.why', why);
    location.replace(base);
  }

  // --- where one is ---

  /** @param {import('./route.js').Place} to */
  go(to) {
    const hash = address(to);
    if (hash === (location.hash || '#/')) return;
    if (this.#trail.at(-2) === hash) history.back();
    else location.hash = hash;
  }

  /** Go to a message, wherever in its chat it is. */
  jump(chat, { id, thread }) {
    this.target = { chat: chat.id, id: thread ?? id };
    this.go({ chat: chat.id, thread });
    this.store.changed('timeline');
  }

  #routed() {
    const { store } = this;
    const hash = location.hash || '#/';
    if (this.#trail.at(-2) === hash) this.#trail.pop();
    else this.#trail.push(hash);
    const before = store.route;
    store.route = place(hash);
    const { chat, panel, thread } = store.route;
    if (chat && !store.chats.has(chat)) {
      try {
        store.ensure(chat);
      } catch {
        this.go({}); // It is no chat id.
        return;
      }
    }
    if (chat !== before.chat) {
      const left = store.chats.get(before.chat);
      left?.timeline.trim();
      if (left?.kind === 'channel') this.client.close(left.id);
      this.atEnd = false;
      if (store.chat) this.opened(store.chat);
    }
    if (thread) this.openThread(store.chat, thread);
    if (panel === 'details' && !store.chat.people) this.loadPeople(store.chat);
    store.changed('route', 'chats', 'timeline', 'people');
  }

  /** Search as it is typed: chats by name at once, messages a moment later. */
  find(query, chatId = '') {
    const { search, lacks } = this.store;
    clearTimeout(this.finding);
    Object.assign(search, { query, chatId, hits: null, busy: false, failed: '' });
    this.store.changed('search');
    const words = query.trim();
    if (!words || lacks.has('search')) return;
    search.busy = true;
    const ask = () => this.searchMessages(query, { chatId: chatId || undefined });
    this.finding = setTimeout(ask, SEARCH_AFTER_MS);
  }

  /** Put the cursor into the search field, on a narrow screen by showing it first. */
  toSearch() {
    const input = document.getElementById('search');
    const enter = () => (input.focus(), input.select());
    // At once if it can be: what is typed next belongs there.
    if (input.checkVisibility()) return enter();
    this.go({});
    soon(enter);
  }

  // --- settings ---

  setTheme(theme) {
    change({ theme });
    if (theme) document.documentElement.dataset.theme = theme;
    else delete document.documentElement.dataset.theme;
    this.store.changed('settings');
  }

  setLanguage(lang) {
    change({ lang });
    speak(lang);
    untoast();
    this.store.changed('settings', 'route', 'chats', 'timeline', 'people', 'connection', 'typing');
  }

  async setStatus(status, text) {
    this.store.self = { status, text };
    this.store.changed('presence', 'chats');
    await this.attempt(() => this.client.request('presence_set', { status, text }));
  }

  // --- telling ---

  toast(text) {
    toast(text);
  }

  /** Have a screen reader say it. */
  announce(text) {
    document.getElementById('live').textContent = text;
  }
}

Object.assign(App.prototype, actions);
