/** Tells of messages when the page is not before one's eyes: title, badge, desktop, Web Push. */

import { change, device, settings } from './account.js';
import { flat } from './markdown.js';

const ICON = new URL('../icon.svg', import.meta.url).href;
const TITLE = 'Hikyaku';

/** No script can be loaded by an address made up while running, but for this one. */
const policy = globalThis.trustedTypes?.createPolicy('hikyaku', {
  createScriptURL: (base) => new URL('web/sw.js', base).href,
});

export class Notifier {
  /** @type {Promise<ServiceWorkerRegistration|null>} */
  #worker;
  #key = null;

  /** @param {import('./app.js').App} app @param {URL} base */
  constructor(app, base) {
    this.app = app;
    this.base = base;
    this.#worker = this.#register();
    app.store.on(['chats'], () => this.#badge());
  }

  async #register() {
    const workers = navigator.serviceWorker;
    if (!workers) return null; // Not a secure context: the client works without.
    const scope = this.base.pathname;
    const had = workers.controller;
    workers.oncontrollerchange = () => had && this.app.toast(this.app.t('updated'));
    workers.onmessage = ({ data }) => data.chat && this.app.go({ chat: data.chat });
    try {
      const url = policy?.createScriptURL(this.base) ?? new URL('web/sw.js', this.base);
      return await workers.register(url, { scope, updateViaCache: 'none' });
    } catch (error) {
      console.info('hikyaku: no service worker:', error.message);
      return null;
    }
  }

  get supported() {
    return 'Notification' in globalThis && Notification.permission !== 'denied';
  }

  get on() {
    return this.supported && Notification.permission === 'granted' && settings().notify === true;
  }

  /** The list of chats is here: which are muted, and does this browser get pushes still? */
  async begin() {
    const { client, store } = this.app;
    const found = await client.http('GET', 'v1/notifications').catch(() => null);
    if (!found) return;
    store.knows.add('notifications');
    this.#key = found.vapid_key;
    const muted = new Set(found.muted);
    for (const chat of store.chats.values()) {
      if (chat.muted !== muted.has(chat.id)) this.app.cache.dirty.add(chat.id);
      chat.muted = muted.has(chat.id);
    }
    store.changed('chats', 'people');
    if (this.on) await this.#subscribe();
  }

  /** The person asked for notifications, or wants no more. @returns {Promise<boolean>} whether on */
  async turn(on) {
    const granted = on && (await Notification.requestPermission()) === 'granted';
    change({ notify: granted });
    if (granted) await this.#subscribe();
    else await this.stop();
    return granted;
  }

  /** Push to this browser also when no page is open, if the server can. */
  async #subscribe() {
    const worker = await this.#worker;
    if (!this.#key || !worker?.pushManager) return;
    try {
      const asked = { userVisibleOnly: true, applicationServerKey: this.#key };
      const subscription = (await worker.pushManager.subscribe(asked)).toJSON();
      const registered = { device: device(), provider: 'webpush', subscription };
      await this.app.client.http('POST', 'v1/devices', registered);
    } catch (error) {
      console.info('hikyaku: no pushes to this browser:', error.message);
    }
  }

  /** No pushes to this browser any more. */
  async stop() {
    const worker = await this.#worker;
    const subscription = await worker?.pushManager?.getSubscription();
    if (!subscription) return;
    await subscription.unsubscribe();
    await this.app.client.http('DELETE', `v1/devices/${device()}`);
  }

  /** A message of another person has arrived. */
  message(chat, item) {
    const { app } = this;
    const { store, t } = app;
    const mentioned = item.mentions?.includes(store.me);
    if (app.reading(chat)) {
      app.announce(t('said', { name: item.from, text: flat(item.content) }));
      return;
    }
    if (store.connection.phase !== 'online' || store.self.status === 'dnd') return;
    if ((chat.muted && !mentioned) || !this.on || document.hasFocus()) return;
    this.#show(chat, item).catch((error) => console.info('hikyaku: not shown:', error.message));
  }

  async #show(chat, item) {
    const { t } = this.app;
    const title = chat.kind === 'dm' ? item.from : t('in', { name: item.from, chat: chat.name });
    const body = flat(item.content).slice(0, 200) || t('preview.file');
    const options = { body, icon: ICON, tag: chat.id, renotify: true, data: { chat: chat.id } };
    const worker = await this.#worker;
    if (worker) await worker.showNotification(title, options);
    else new Notification(title, options).onclick = () => (window.focus(), this.app.go({ chat: chat.id }));
  }

  #badge() {
    const { unread } = this.app.store;
    document.title = unread ? `(${unread}) ${TITLE}` : TITLE;
    if (unread) navigator.setAppBadge?.(unread).catch(() => {});
    else navigator.clearAppBadge?.().catch(() => {});
  }
}
