/** A chat as it stands in the list. */

import { h } from '../app/dom.js';
import { avatar, clean, list, when } from '../app/format.js';
import { t } from '../app/i18n.js';
import { icon } from '../app/icons.js';
import { flat } from '../app/markdown.js';
import { address } from '../app/route.js';
import { arrows } from './parts.js';

/** One chat in the list. */
export function chatItem(app, chat) {
  const { store } = app;
  const group = chat.kind !== 'dm';
  const status = chat.other && (store.seen(chat.other)?.status ?? 'offline');
  const current = store.route.chat === chat.id;
  const at = chat.waiting?.at ?? chat.last?.timestamp;
  return h(
    'a.chat',
    {
      key: chat.id,
      href: address({ chat: chat.id }),
      'aria-current': current ? 'page' : undefined,
      class: chat.unread && !chat.muted ? 'unread' : '',
      onkeydown: arrows,
    },
    avatar(chat.name, { group, status: status === 'offline' ? '' : status }),
    h(
      'span.lines',
      null,
      h(
        'span.top',
        null,
        h('b', null, chat.kind === 'channel' && h('span.hash', null, '#'), clean(chat.name)),
        at && h('time', null, when(at, t)),
      ),
      h(
        'span.bottom',
        null,
        h('span.preview', null, preview(app, chat)),
        chat.muted && icon('mute', 15),
        chat.unread > 0 &&
          h(
            'span',
            { class: chat.muted ? 'badge quiet' : 'badge' },
            chat.unread > 999 ? '999+' : chat.unread,
            h('span.hidden', null, ` ${t('unread')}`),
          ),
      ),
    ),
  );
}

function preview(app, chat) {
  const { store } = app;
  if (chat.typing.size) return h('em', null, typists(chat));
  if (chat.draft && store.route.chat !== chat.id) {
    return [h('em', null, t('draft')), ' ', flat(chat.draft)];
  }
  const { last, waiting } = chat;
  if (waiting) return t('preview.me', { text: flat(waiting.frame.content) || t('preview.file') });
  if (!last) return chat.kind === 'dm' ? '' : t('members', { n: chat.members });
  const text = last.deleted ? t('deleted') : flat(last.content) || t('preview.file');
  if (last.from === store.me) return t('preview.me', { text });
  return chat.kind === 'dm' ? text : t('preview.other', { name: clean(last.from), text });
}

/** "bob is typing", in a chat of two without the name. */
export function typists(chat) {
  const names = [...chat.typing.keys()].map(clean);
  if (chat.kind === 'dm') return t('typing');
  return names.length > 2 ? t('typing.many') : t('typing.who', { n: names.length, names: list(names) });
}
