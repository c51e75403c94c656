/** What can be done with a message, from its buttons, its menu, or by keys. */

import { h } from '../app/dom.js';
import { full } from '../app/format.js';
import { t } from '../app/i18n.js';
import { icon } from '../app/icons.js';
import { pickEmoji } from './emojipicker.js';
import { copyText, unfold } from './message.js';
import { confirm, dialog, menu } from './parts.js';

/**
 * @param {import('../app/app.js').App} app
 * @param {object} place
 * @param {() => import('../app/store.js').Chat} place.chat
 * @param {import('./composer.js').Composer} place.composer
 * @param {(id: string) => void} place.jump
 * @param {() => void} place.hold keep what is in sight where it is
 */
export function deeds(app, { chat, composer, jump, hold }) {
  const { store, client } = app;

  const manages = () =>
    chat().people?.some((each) => each.user_id === store.me && each.role !== 'member') ?? false;

  const act = {
    jump,
    why: (error) => (error ? app.why(error) : ''),
    focusComposer: () => composer.focus(),
    reply: (item) => composer.reply(item),
    edit: (item) => composer.edit(item),
    copy: (item) => copyText(app, item.content),
    unfold(key, button) {
      button.closest('.message').focus({ preventScroll: true }); // The button goes away.
      unfold(key);
      hold();
      store.changed('timeline');
    },
    thread: (item) => app.go({ chat: chat().id, thread: item.thread ?? item.id }),
    toggle: (item, emoji) => app.react(chat(), item, emoji),
    react: (item, anchor) => pickEmoji(anchor, (emoji) => app.react(chat(), item, emoji)),
    retry(item) {
      if (client.outbox.entries.has(item.client_id)) return client.retry(item.client_id);
      const { content, mentions, attachments, reply_to, thread } = item;
      act.discard(item);
      return app.send(chat(), { content, mentions, attachments, reply_to, thread });
    },
    discard(item) {
      if (client.outbox.entries.has(item.client_id)) return client.discard(item.client_id);
      for (const each of [chat().timeline, ...chat().threads.values()]) each.travelling.delete(item.id);
      return store.changed('timeline');
    },
    remove(item) {
      if (item.from !== store.me && !manages()) return;
      const act = () => client.delete(chat().id, item.id);
      confirm({ title: t('delete'), text: t('delete.text'), action: t('delete'), act });
    },
    more(item, anchor) {
      const own = item.from === store.me;
      const entry = (name, label, does, danger = false) => ({ icon: icon(name, 18), label, act: does, danger });
      menu(anchor, t('more'), [
        entry('quote', t('reply'), () => act.reply(item)),
        entry('thread', t('thread.reply'), () => act.thread(item)),
        item.content && entry('copy', t('copy.text'), () => act.copy(item)),
        own && entry('edit', t('edit'), () => act.edit(item)),
        entry('info', t('info'), () => about(item)),
        (own || manages()) && entry('trash', t('delete'), () => act.remove(item), true),
      ]);
    },
  };

  function about(item) {
    const readers = [...chat().receipts].filter(([, at]) => at.read >= item.seq).map(([user]) => user);
    const rows = [
      [t('info.from'), item.from],
      [t('info.at'), full(item.timestamp)],
      item.edited_at && [t('info.edited'), full(item.edited_at)],
      item.from === store.me && [t('info.read'), readers.join(', ') || t('info.nobody')],
    ];
    const view = h('dl.facts', { key: 'facts' }, rows.filter(Boolean).map(([name, text]) => [h('dt', null, name), h('dd', null, text)]));
    dialog({ title: t('info'), className: 'small', view: () => [view] });
  }

  return act;
}
