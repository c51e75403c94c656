/** The open chat: its head, its messages, what is being typed, and where one writes. */

import { h, patch } from '../app/dom.js';
import { avatar, clean, when } from '../app/format.js';
import { t } from '../app/i18n.js';
import { icon, iconButton, logo } from '../app/icons.js';
import { rows } from '../app/timeline.js';
import { VirtualList } from '../app/vlist.js';
import { typists } from './chatitem.js';
import { Composer } from './composer.js';
import { deeds } from './deeds.js';
import { estimate, rowView } from './message.js';
import { empty, skeleton } from './parts.js';

const FLASH_MS = 1600;

/** @param {import('../app/app.js').App} app @param {HTMLElement} root */
export function conversation(app, root) {
  const { store } = app;
  const head = part('header', 'bar');
  const body = part('div', 'body');
  const typing = part('div', 'typing');
  typing.setAttribute('role', 'status');
  const scroller = part('div', 'scroller');
  scroller.tabIndex = 0;
  const over = part('div', 'over');
  body.append(scroller, over);
  const composer = new Composer(app, { sent });
  const act = deeds(app, { chat: () => store.chat, composer, jump, hold: () => list.hold() });
  let shown = '';
  let placed = false;
  let flash = '';

  const list = new VirtualList({
    scroller,
    label: () => t('messages'),
    estimate,
    render: (row) => rowView({ app, chat: store.chat, act, flash, inThread: false }, row),
    moved,
  });

  function draw() {
    const { chat } = store;
    if (!chat) {
      shown = '';
      root.replaceChildren(blank(app));
      return;
    }
    if (shown !== chat.id) open(chat);
    patch(head, header(app, chat));
    messages();
  }

  function open(chat) {
    shown = chat.id;
    placed = false;
    flash = '';
    root.replaceChildren(head, body, typing, composer.element);
    composer.show(chat);
    list.set([]);
    list.toEnd();
    if (matchMedia('(hover: hover)').matches) composer.focus();
  }

  function messages() {
    const { chat } = store;
    if (!chat || shown !== chat.id) return;
    const writes = app.client.outbox.writes.filter((entry) => entry.lane === chat.id);
    const { timeline } = chat;
    const found = rows(timeline, { writes, me: store.me, newFrom: chat.newFrom });
    list.set([...ends(app, chat), ...found]);
    aim(chat);
    overlay(chat, found.length === 0);
  }

  /** Go where the eye should be: a message that was asked for, or the first unread one. */
  function aim(chat) {
    const { target } = app;
    if (target?.chat === chat.id && chat.fresh) {
      app.target = null;
      placed = true;
      jump(target.id);
    } else if (!placed && (chat.fresh || !chat.unread)) {
      placed = true;
      if (!chat.newFrom || !list.to('new', 'third')) list.redraw();
    }
  }

  async function jump(id) {
    const { chat } = store;
    if (!(await app.attempt(() => app.loadAround(chat, id)))) {
      app.toast(t('gone'));
      return;
    }
    messages();
    const row = list.rows.find((each) => each.item?.id === id);
    if (!row) return;
    flash = row.key;
    list.to(row.key);
    list.element(row.key)?.focus({ preventScroll: true });
    setTimeout(() => {
      flash = '';
      list.redraw();
    }, FLASH_MS);
  }

  function moved({ start, end, atEnd }) {
    const { chat } = store;
    if (!chat || shown !== chat.id) return;
    const { timeline } = chat;
    const was = app.atEnd;
    app.atEnd = placed && atEnd && timeline.atEnd;
    if (start && !timeline.failed) app.loadOlder(chat);
    if (end && !timeline.atEnd && !timeline.failed) app.loadNewer(chat);
    if (app.reading(chat)) app.read(chat);
    if (was !== app.atEnd) overlay(chat);
  }

  async function sent() {
    const { chat } = store;
    if (!chat.timeline.atEnd) await app.loadNewest(chat);
    list.toEnd();
  }

  function overlay(chat, nothing = false) {
    const { timeline } = chat;
    const loading = nothing && Boolean(timeline.loading);
    const failed = nothing && timeline.failed;
    const toEnd = async () => {
      if (!timeline.atEnd) await app.loadNewest(chat);
      list.toEnd();
      composer.focus();
    };
    patch(over, [
      loading && skeleton(6, t('loading')),
      failed &&
        empty(icon('warn', 40), t('history.failed'), timeline.why,
          h('button.button', { type: 'button', onclick: () => app.refresh(chat) }, t('again'))),
      !nothing && !app.atEnd &&
        h('button.to-end', { key: 'end', type: 'button', onclick: toEnd },
          icon('down', 18), chat.unread ? t('new.count', { n: chat.unread }) : t('to.end')),
    ]);
  }

  function types() {
    const { chat } = store;
    const text = chat?.typing.size ? typists(chat) : '';
    patch(typing, text && [h('i', { 'aria-hidden': 'true' }), h('span', null, text)]);
  }

  drops(root, () => store.chat, composer);
  app.composer = composer;
  store.on(['route', 'people', 'presence', 'settings', 'search'], () => store.chat && patch(head, header(app, store.chat)));
  store.on(['route', 'settings'], draw);
  store.on(['chats'], () => store.chat || draw());
  store.on(['timeline', 'people'], messages);
  store.on(['typing', 'route', 'settings'], types);
}

function part(tag, className) {
  const element = document.createElement(tag);
  element.className = className;
  return element;
}

/** What stands above the messages that are here: the beginning, or that more is being loaded. */
function ends(app, chat) {
  const { timeline } = chat;
  if (timeline.atStart) return [{ key: 'start', kind: 'start' }];
  if (!timeline.items.length) return [];
  if (timeline.failed !== 'older') return [{ key: 'loading', kind: 'loading' }];
  return [{ key: 'failed', kind: 'failed', retry: () => app.loadOlder(chat) }];
}

function blank(app) {
  const element = part('div', 'blank');
  const title = t(app.store.ordered.length ? 'empty.none' : 'empty.welcome');
  patch(element, empty(logo(72), title, t('empty.none.text'),
    h('p.keys', null, h('kbd', null, 'Ctrl'), h('kbd', null, 'K'), ` ${t('keys.search')}`)));
  return element;
}

function header(app, chat) {
  const { store } = app;
  const group = chat.kind !== 'dm';
  const seen = store.seen(chat.other);
  const status = seen?.status ?? '';
  const open = store.route.panel === 'details';
  const details = () => app.go({ chat: chat.id, panel: open ? '' : 'details' });
  return [
    iconButton('back', t('back'), () => app.go({}), { class: 'back' }),
    h(
      'button.who',
      { type: 'button', onclick: details, 'aria-label': t('details.of', { name: clean(chat.name) }) },
      avatar(chat.name, { group, status: status === 'offline' ? '' : status }),
      h('span', null, h('h1', null, chat.kind === 'channel' && h('span.hash', null, '#'), clean(chat.name)),
        h('small', null, group ? t('members', { n: chat.members }) : presenceText(seen))),
    ),
    !store.lacks.has('search') &&
      iconButton('search', t('search.in'), () => {
        app.find('', chat.id);
        app.toSearch();
      }, { class: 'find' }),
    iconButton('info', t('details'), details, { 'aria-pressed': String(open) }),
  ];
}

export function presenceText(seen) {
  if (!seen) return '';
  if (seen.text) return seen.text;
  if (seen.status === 'offline' && seen.last_seen) return t('seen', { when: when(seen.last_seen, t) });
  return t(`status.${seen.status}`);
}

/** Files that are dropped on the conversation go into the tray. */
function drops(root, chat, composer) {
  let depth = 0;
  const files = (event) => chat() && [...event.dataTransfer.types].includes('Files');
  const over = (by) => {
    depth = Math.max(0, depth + by);
    root.toggleAttribute('data-drop', depth > 0);
    root.dataset.dropText = t('drop');
  };
  root.addEventListener('dragenter', (event) => files(event) && over(1));
  root.addEventListener('dragleave', (event) => files(event) && over(-1));
  root.addEventListener('dragover', (event) => files(event) && event.preventDefault());
  root.addEventListener('drop', (event) => {
    if (!files(event)) return;
    event.preventDefault();
    over(-depth);
    composer.attach(event.dataTransfer.files);
  });
}
