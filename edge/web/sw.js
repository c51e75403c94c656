/**
 * Keeps the client's own files, so that it starts without a network, and shows pushes.
 *
 * The server puts `VERSION` and `FILES` in front. A new version is fetched whole before it is used.
 * An edge that has another one refuses the page, and does not call its files immutable: then the
 * installation is tried again later.
 */

const CACHE = `hikyaku-${VERSION}`;
const BASE = new URL('../', self.location);

self.addEventListener('install', (event) => {
  event.waitUntil(install());
});

async function install() {
  const cache = await caches.open(CACHE);
  const keep = async (url, request, isRight) => {
    const answer = await fetch(request);
    if (!answer.ok || !isRight(answer)) throw new Error(`${url}: HTTP ${answer.status}`);
    await cache.put(url, answer);
  };
  // What the page has fetched by itself comes from the browser's cache.
  const immutable = ({ headers }) => headers.get('Cache-Control')?.includes('immutable');
  const page = new Request(`${BASE}?v=${VERSION}`, { cache: 'no-cache' });
  await Promise.all([
    keep(BASE, page, () => true),
    ...FILES.map((name) => new URL(`web/v-${VERSION}/${name}`, BASE)).map((url) => keep(url, url, immutable)),
  ]);
  await self.skipWaiting();
}

self.addEventListener('activate', (event) => {
  event.waitUntil(activate());
});

async function activate() {
  const old = (await caches.keys()).filter((name) => name.startsWith('hikyaku-') && name !== CACHE);
  await Promise.all(old.map((name) => caches.delete(name)));
  await self.clients.claim();
}

self.addEventListener('fetch', (event) => {
  const url = new URL(event.request.url);
  const page = event.request.mode === 'navigate' && url.pathname === BASE.pathname;
  const ours = url.origin === BASE.origin && url.pathname.startsWith(`${BASE.pathname}web/`);
  if (event.request.method !== 'GET' || !(page || ours)) return;
  event.respondWith(kept(page ? BASE : url, event.request));
});

async function kept(url, request) {
  const cache = await caches.open(CACHE);
  return (await cache.match(url)) ?? fetch(request);
}

self.addEventListener('push', (event) => {
  const { title, body, chat_id: chat, badge } = read(event.data);
  if (badge !== undefined) self.navigator.setAppBadge?.(badge).catch(() => {});
  const icon = new URL(`web/v-${VERSION}/icon.svg`, BASE).href;
  const shown = { body, icon, tag: chat, renotify: Boolean(chat), data: { chat } };
  event.waitUntil(self.registration.showNotification(title ?? 'Hikyaku', shown));
});

function read(data) {
  try {
    return data?.json() ?? {};
  } catch {
    return {}; // Not ours to read; the browser still demands that something is shown.
  }
}

self.addEventListener('notificationclick', (event) => {
  event.notification.close();
  event.waitUntil(open(event.notification.data?.chat));
});

async function open(chat) {
  const pages = await self.clients.matchAll({ type: 'window', includeUncontrolled: true });
  const page = pages.find((each) => each.url.startsWith(BASE.href));
  if (!page) return self.clients.openWindow(chat ? `${BASE}#/${chat}` : BASE);
  await page.focus();
  if (chat) page.postMessage({ chat });
  return page;
}
