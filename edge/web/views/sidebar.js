/** The list of chats with search above it, and who one is. */

import { h, patch } from '../app/dom.js';
import { avatar, clean } from '../app/format.js';
import { t } from '../app/i18n.js';
import { icon, iconButton } from '../app/icons.js';
import { newChat } from './newchat.js';
import { chatItem } from './chatitem.js';
import { empty, skeleton } from './parts.js';
import { results } from './results.js';
import { settingsDialog } from './settings.js';

/** @param {import('../app/app.js').App} app @param {HTMLElement} root */
export function sidebar(app, root) {
  const { store } = app;
  const pill = pillView(app);
  const draw = () =>
    patch(root, [
      h('h1.hidden', { key: 'name' }, 'Hikyaku'),
      header(app, pill.element),
      searchField(app),
      store.search.query || store.search.chatId ? results(app) : chats(app),
    ]);
  store.on(['chats', 'presence', 'search', 'settings', 'typing'], draw);
  draw();
}

function header(app, pill) {
  const { me, cut } = app.store;
  const self = cut ? { status: 'unknown', text: t('status.offline') } : app.store.self;
  const shown = self.text || t(`status.${self.status}`);
  return h(
    'div.bar',
    { key: 'head' },
    h(
      'button.me',
      {
        type: 'button',
        'aria-label': t('me', { name: me, status: shown }),
        onclick: () => settingsDialog(app),
      },
      avatar(me, { status: self.status }),
      h('span.who', null, h('b', null, clean(me)), h('small', null, shown)),
    ),
    h('div', { key: 'pill', mount: (element) => element.append(pill), class: 'pill-place' }),
    iconButton('edit', t('new'), () => newChat(app), { class: 'new' }),
  );
}

/** Says whether what is shown is the present state. */
function pillView(app) {
  const element = document.createElement('div');
  element.setAttribute('role', 'status');
  let shown = '';
  let timer = 0;
  const draw = () => {
    clearInterval(timer);
    const { phase, retryAt, reason } = app.store.connection;
    const kind = { online: 'online', waiting: 'offline', stopped: 'stopped' }[phase] ?? 'connecting';
    element.className = `pill ${kind}`;
    element.title = reason ?? '';
    const text = t(`pill.${kind}`);
    if (text !== shown) element.dataset.changed = '';
    shown = text;
    patch(element, [
      h('i', { 'aria-hidden': 'true' }),
      kind === 'offline' || kind === 'stopped'
        ? h('button', { type: 'button', onclick: () => retry(app), title: t('pill.retry') }, text)
        : h('span', null, text),
      kind === 'offline' && h('small', { 'aria-hidden': 'true' }, seconds(retryAt)),
    ]);
    if (kind === 'offline') timer = setInterval(draw, 1000);
  };
  app.store.on(['connection', 'settings'], draw);
  draw();
  return { element };
}

const seconds = (until) => t('seconds', { n: Math.max(0, Math.ceil((until - Date.now()) / 1000)) });

function retry(app) {
  if (app.store.connection.phase === 'stopped') location.reload();
  else app.client.reconnect();
}

function searchField(app) {
  const { search } = app.store;
  const chat = app.store.chats.get(search.chatId);
  const clear = () => {
    app.find('', '');
    document.getElementById('search').focus();
  };
  return h(
    'div.search',
    { key: 'search', role: 'search' },
    icon('search', 18),
    chat &&
      h('button.scope', { type: 'button', title: t('search.all'), onclick: clear }, clean(chat.name), icon('close', 14)),
    h('input', {
      id: 'search',
      type: 'search',
      placeholder: t(chat ? 'search.in' : 'search'),
      'aria-label': t(chat ? 'search.in' : 'search'),
      autocomplete: 'off',
      value: search.query,
      oninput: ({ target }) => app.find(target.value, search.chatId),
      onkeydown: (event) => {
        if (event.key === 'Escape') {
          clear();
          event.stopPropagation();
        } else if (event.key === 'ArrowDown') {
          root(event).querySelector('.chat, .hit')?.focus();
          event.preventDefault();
        } else if (event.key === 'Enter') {
          root(event).querySelector('.chat, .hit')?.click();
        }
      },
    }),
    (search.query || chat) && iconButton('close', t('search.clear'), clear, { size: 16 }),
  );
}

const root = (event) => event.target.closest('#sidebar');

function chats(app) {
  const { store } = app;
  const found = store.ordered;
  if (!found.length) {
    if (!store.listed && store.connection.phase !== 'stopped') return skeleton(6, t('loading'));
    return empty(
      icon('send', 40),
      t('empty.chats'),
      t('empty.chats.text'),
      h('button.button.primary', { type: 'button', onclick: () => newChat(app) }, t('new')),
    );
  }
  const onscroll = ({ target }) => {
    const left = target.scrollHeight - target.scrollTop - target.clientHeight;
    if (left > 400 || !store.moreChats) return;
    const after = store.moreChats;
    store.moreChats = '';
    app.attempt(() => app.loadChats(after));
  };
  return h(
    'div.chats',
    { key: 'chats', onscroll },
    found.map((chat) => chatItem(app, chat)),
  );
}
