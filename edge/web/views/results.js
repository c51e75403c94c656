/** What the search found: chats by name, at once, and messages. */

import { h } from '../app/dom.js';
import { avatar, clean, when } from '../app/format.js';
import { t } from '../app/i18n.js';
import { icon } from '../app/icons.js';
import { flat } from '../app/markdown.js';
import { address } from '../app/route.js';
import { chatItem } from './chatitem.js';
import { arrows, empty, skeleton } from './parts.js';

const MARKED = /\uE000([^\uE001]*)\uE001/g;
const SHOWN = 6;

/** @param {import('../app/app.js').App} app */
export function results(app) {
  const { store } = app;
  const { query, hits, busy, failed, chatId } = store.search;
  const wanted = query.trim().toLowerCase();
  const chats = chatId || !wanted
    ? []
    : store.ordered.filter((chat) => chat.name.toLowerCase().includes(wanted)).slice(0, SHOWN);
  const lacks = store.lacks.has('search');
  const nothing = !chats.length && (lacks || (hits && !hits.length)) && !busy && !failed;
  return h(
    'div.chats.results',
    { key: 'results' },
    chats.length > 0 && section('c', t('search.chats'), chats.map((chat) => chatItem(app, chat))),
    !lacks && hits?.length > 0 && section('m', t('search.messages', { n: store.search.total }), found(app)),
    busy && !hits?.length && skeleton(4, t('searching')),
    failed && !lacks && h('p.failed', { key: 'failed', role: 'alert' }, failed),
    nothing && wanted && empty(icon('search', 36), t('search.none'), t('search.none.text', { query })),
    !wanted && h('p.hint', { key: 'hint' }, t('search.hint')),
  );
}

const section = (key, title, ...children) =>
  h('section', { key, 'aria-label': title }, h('h2', null, title), ...children);

function found(app) {
  const { hits, total, busy, query, chatId } = app.store.search;
  return [
    hits.map((hit) => row(app, hit)),
    hits.length < total &&
      h(
        'button.link.more',
        {
          key: 'more',
          type: 'button',
          disabled: busy,
          onclick: () => app.searchMessages(query, { chatId, more: true }),
        },
        t('search.more'),
      ),
  ];
}

function row(app, hit) {
  const chat = app.store.ensure(hit.chat_id);
  const to = hit.from === chat.other ? '' : t('to', { name: clean(chat.name) });
  const place = chat.kind === 'dm' ? to : clean(chat.name);
  const open = (event) => {
    event.preventDefault();
    app.jump(chat, hit);
  };
  return h(
    'a.hit',
    {
      key: hit.id,
      href: address({ chat: chat.id, thread: hit.thread }),
      onclick: open,
      onkeydown: arrows,
    },
    avatar(hit.from, { small: true }),
    h(
      'span.lines',
      null,
      h(
        'span.top',
        null,
        h('b', null, clean(hit.from), place && h('small', null, ` ${place}`)),
        h('time', null, when(hit.timestamp, t)),
      ),
      h('span.excerpt', null, marked(flat(hit.highlight ?? hit.content))),
    ),
  );
}

/** A highlight with what matched marked. */
function marked(text) {
  const found = [];
  let at = 0;
  for (const match of text.matchAll(MARKED)) {
    found.push(text.slice(at, match.index), h('mark', null, match[1]));
    at = match.index + match[0].length;
  }
  return [...found, text.slice(at)];
}
