/** Rows of a conversation: messages, days, notices, and what can be done with a message. */

import { h } from '../app/dom.js';
import { avatar, clean, day, full, list, time } from '../app/format.js';
import { t } from '../app/i18n.js';
import { icon, iconButton } from '../app/icons.js';
import { flat, markdown, onlyEmoji } from '../app/markdown.js';
import { attachments } from './attachments.js';
import { skeleton } from './parts.js';

const PARSED = 500;
const FOLDED = 40;
const LINE = 80;
const parsed = new Map();
/** Keys of long messages that were asked for in full. */
const unfolded = new Set();

/**
 * @typedef {object} Context
 * @property {import('../app/app.js').App} app
 * @property {import('../app/store.js').Chat} chat
 * @property {boolean} inThread
 * @property {string} flash the key of a row to be pointed out
 * @property {object} act what can be done: reply, edit, thread, react, more, retry, discard, jump
 */

/** @param {Context} context @param {object} row see `timeline.rows` */
export function rowView(context, row) {
  switch (row.kind) {
    case 'day':
      return h('div.day', null, h('span', null, day(row.timestamp, t)));
    case 'new':
      return h('div.day.new', null, h('span', null, t('new.messages')));
    case 'notice':
      return h('div.notice', null, noticeText(context.chat, row.item));
    case 'replies':
      return h('div.day', null, h('span', null, t('replies', { n: row.n })));
    case 'start':
      return start(context);
    case 'loading':
      return h('div', null, skeleton(3));
    case 'failed':
      return h(
        'div.notice',
        null,
        t('history.failed'),
        h('button.link', { type: 'button', onclick: row.retry }, t('again')),
      );
    default:
      return message(context, row);
  }
}

/** A height before a row was seen. */
export function estimate(row) {
  if (row.kind === 'start' || row.kind === 'loading') return 180;
  if (row.kind !== 'message') return 48;
  const { item, head, key } = row;
  const lines = shown(item, key).split('\n').reduce((sum, line) => sum + high(line), 0);
  return (head ? 48 : 26) + Math.max(lines - 1, 0) * 22 + (item.attachments?.length ? 240 : 0);
}

/** How many lines a line takes, about. */
const high = (line) => Math.max(1, Math.ceil(line.length / LINE));

/** The text of a message, of a long one its beginning. */
function shown({ content }, key) {
  if (content.length < FOLDED || unfolded.has(key)) return content;
  let lines = 0;
  let end = 0;
  for (const line of content.split('\n')) {
    const room = FOLDED - lines;
    lines += high(line);
    if (lines > FOLDED) return content.slice(0, end + room * LINE).replace(/[\s\uD800-\uDBFF]+$/, '');
    end += line.length + 1;
  }
  return content;
}

/** From now on in full. */
export const unfold = (key) => unfolded.add(key);

function noticeText({ founded }, { notice, by, users = [], name, roles, made }) {
  const values = { by: clean(by), users: list(users.map(clean)), name: clean(name ?? '') };
  if (made) {
    const others = (users.length > 1 ? users : founded ?? []).filter((user) => user !== by);
    return t(others.length ? 'notice.made.with' : 'notice.made', { ...values, users: list(others.map(clean)) });
  }
  if (notice === 'member_added') return t(users.includes(by) ? 'notice.joined' : 'notice.added', values);
  if (notice === 'member_removed') return t(users.includes(by) ? 'notice.left' : 'notice.removed', values);
  if (roles) {
    return list([...new Set(Object.values(roles))].map((role) => {
      const now = Object.keys(roles).filter((user) => roles[user] === role);
      return t(`notice.role.${role}`, { ...values, users: list(now.map(clean)) });
    }));
  }
  return t('notice.renamed', values);
}

function start({ chat, inThread }) {
  if (inThread) return h('div');
  const group = chat.kind !== 'dm';
  return h(
    'div.start',
    null,
    avatar(chat.name, { group }),
    h('h2', null, clean(chat.name)),
    h('p', null, t(group ? 'start.group' : 'start.dm', { name: clean(chat.name) })),
  );
}

function message(context, { item, head, key }) {
  const { app, chat, flash } = context;
  const own = item.from === app.store.me;
  const classes = ['message'];
  if (head) classes.push('head');
  if (item.state === 'failed') classes.push('failed');
  if (!item.id || item.pending) classes.push('pending');
  if (flash === key) classes.push('flash');
  if (item.mentions?.includes(app.store.me)) classes.push('for-me');
  const who = clean(item.from);
  return h(
    'div',
    {
      class: classes.join(' '),
      tabindex: '-1',
      'aria-label': t('message.label', { name: who, time: time(item.timestamp) }),
      onkeydown: (event) => keys(context, item, event),
    },
    h(
      'div.gutter',
      null,
      head ? avatar(item.from) : h('time', { 'aria-hidden': 'true' }, time(item.timestamp)),
    ),
    h(
      'div.content',
      null,
      head && h('div.meta', null, h('b', null, who), h('time', { title: full(item.timestamp) }, time(item.timestamp))),
      item.reply_to && quote(context, item.reply_to),
      body(context, item, key),
      item.state === 'failed' && failure(context, item),
      reactions(context, item),
      !context.inThread && item.replies > 0 && replies(context, item),
    ),
    h('div.state', null, own && tick(app, chat, item)),
    item.id && !item.deleted && item.state !== 'failed' && tools(context, item),
  );
}

function body({ app, chat, act }, item, key) {
  if (item.deleted) return h('p.gone', null, t('deleted'));
  const text = shown(item, key);
  const folded = text !== item.content;
  const edited = item.edited_at && h('small.edited', { title: full(item.edited_at) }, t('edited'));
  return h(
    'div',
    { class: onlyEmoji(text) ? 'text jumbo' : 'text', dir: 'auto' },
    text && withMark(words(app, item, text), edited),
    folded &&
      h('button.link.all', { type: 'button', onclick: ({ target }) => act.unfold(key, target) }, t('show.all')),
    attachments(app, chat, item),
  );
}

/** A mark at the end of the last paragraph, or below what is no paragraph. */
function withMark(views, mark) {
  const last = views.at(-1);
  if (!mark || last?.name !== 'p') return [views, mark];
  return [...views.slice(0, -1), { ...last, children: [...last.children, ' ', mark] }];
}

/** Parsing is kept, since rows are drawn again and again. What is cut off is not copied. */
function words(app, { content, mentions = [] }, text) {
  const labels = { copy: t('copy') };
  const key = [text, content.length, labels.copy, ...mentions].join('\n');
  let found = parsed.get(key);
  if (!found) {
    const copy = text === content && ((code) => copyText(app, code));
    found = markdown(text, { mentions, me: app.store.me, copy, labels });
    parsed.set(key, found);
    if (parsed.size > PARSED) parsed.delete(parsed.keys().next().value);
  }
  return found;
}

export async function copyText(app, text) {
  await navigator.clipboard.writeText(text);
  app.toast(t('copied'));
}

function quote({ app, chat, act }, id) {
  const found = chat.timeline.get(id) ?? chat.quotes.get(id);
  if (!found) app.quote(chat, id);
  const gone = found?.gone || found?.deleted;
  const text = gone ? t('deleted') : flat(found?.content ?? '') || t(found?.from ? 'preview.file' : 'loading');
  return h(
    'button.quote',
    { type: 'button', disabled: Boolean(gone), onclick: () => act.jump(id), 'aria-label': t('quote.label', { text }) },
    icon('quote', 15),
    found?.from && h('b', null, clean(found.from)),
    h('span', null, text),
  );
}

function failure({ act }, item) {
  return h(
    'p.failed',
    { role: 'alert' },
    icon('warn', 16),
    t('failed.send', { why: act.why(item.error) }),
    h('button.link', { type: 'button', onclick: () => act.retry(item) }, t('again')),
    h('button.link', { type: 'button', onclick: () => act.discard(item) }, t('delete')),
  );
}

function reactions({ app, act }, item) {
  const all = Object.entries(item.reactions ?? {});
  if (!all.length) return null;
  return h(
    'div.reactions',
    null,
    all.map(([emoji, users]) => {
      const names = list(users.map((user) => (user === app.store.me ? t('you') : clean(user))));
      return h(
        'button',
        {
          key: emoji,
          type: 'button',
          'aria-pressed': String(users.includes(app.store.me)),
          title: names,
          'aria-label': t('reaction.label', { emoji, n: users.length, names }),
          onclick: () => act.toggle(item, emoji),
        },
        h('span', null, emoji),
        users.length,
      );
    }),
    iconButton('smile', t('react'), (event) => act.react(item, event.currentTarget), { size: 16, class: 'react' }),
  );
}

function replies({ act }, item) {
  return h(
    'button.replies',
    { type: 'button', onclick: () => act.thread(item) },
    icon('thread', 16),
    t('replies', { n: item.replies }),
  );
}

/** How far an own message has come: waiting, sent, delivered, read. */
function tick(app, chat, item) {
  if (item.deleted) return null;
  const [name, state, values] = progress(app, chat, item);
  const label = t(`tick.${state}`, values);
  return h('span', { class: `tick ${state}`, title: label, role: 'img', 'aria-label': label }, icon(name, 16));
}

function progress({ store }, chat, item) {
  if (item.state === 'failed') return ['warn', 'failed'];
  if (!item.id || item.pending) return ['wait', 'waiting'];
  const others = chat.kind === 'dm' ? [chat.other] : (chat.people ?? []).map((each) => each.user_id);
  const asked = others.filter((user) => user !== store.me);
  const reached = (kind) => asked.filter((user) => (chat.receipts.get(user)?.[kind] ?? 0) >= item.seq);
  const read = reached('read').length;
  if (asked.length && read === asked.length) return ['ticks', 'read'];
  if (read && chat.kind !== 'dm') return ['ticks', 'readby', { n: read, of: asked.length }];
  if (asked.length && reached('delivered').length === asked.length) return ['ticks', 'delivered'];
  return ['check', 'sent'];
}

function tools({ app, act, inThread }, item) {
  const own = item.from === app.store.me;
  const small = { size: 18, tabindex: '-1' };
  const opens = { ...small, 'aria-haspopup': 'true' };
  return h('div.rail', null, h(
    'div.tools',
    null,
    iconButton('smile', t('react'), (event) => act.react(item, event.currentTarget), opens),
    iconButton('quote', t('reply'), () => act.reply(item), small),
    !inThread && iconButton('thread', t('thread.reply'), () => act.thread(item), small),
    own && iconButton('edit', t('edit'), () => act.edit(item), small),
    iconButton('more', t('more'), (event) => act.more(item, event.currentTarget), opens),
  ));
}

const KEYS = { r: 'reply', e: 'edit', t: 'thread', Enter: 'thread', c: 'copy', Delete: 'remove', '+': 'react', m: 'more' };

/** Keys on a message that has the focus; arrows go to the next one. */
function keys({ act, app, inThread }, item, event) {
  if (event.target !== event.currentTarget || event.ctrlKey || event.metaKey || event.altKey) return;
  const down = event.key === 'ArrowDown';
  if (down || event.key === 'ArrowUp') {
    let next = event.target;
    do next = down ? next.nextElementSibling : next.previousElementSibling;
    while (next && !next.classList.contains('message'));
    event.preventDefault();
    if (next) {
      next.focus({ preventScroll: true });
      next.scrollIntoView({ block: 'nearest' });
    } else if (down) {
      act.focusComposer();
    }
    return;
  }
  const name = KEYS[event.key];
  if (!name || !item.id || item.deleted || item.state === 'failed') return;
  if (name === 'edit' && item.from !== app.store.me) return;
  if (name === 'thread' && inThread) return;
  event.preventDefault();
  act[name](item, event.currentTarget);
}
