/** Keys that work everywhere; those of a message are in `views/message.js`. */

import { newChat } from '../views/newchat.js';
import { keysDialog } from '../views/settings.js';

/** @param {import('./app.js').App} app */
export function shortcuts(app) {
  const { store } = app;

  const step = (by, unread) => {
    const all = store.ordered.filter((chat) => !unread || chat.unread || chat.id === store.route.chat);
    const at = all.findIndex((chat) => chat.id === store.route.chat);
    const next = at < 0 ? all[0] : all[(at + by + all.length) % all.length];
    if (next) app.go({ chat: next.id });
  };

  /** From the writing to the messages, and on from there. */
  const intoMessages = () => {
    const scroller = document.activeElement?.closest('.thread')?.querySelector('.scroller')
      ?? document.querySelector('#main .scroller');
    const all = scroller?.querySelectorAll('.message') ?? [];
    all[all.length - 1]?.focus();
  };

  const escape = () => {
    const { chat, panel } = store.route;
    if (panel) app.go({ chat });
    else if (chat && document.activeElement?.closest('.message, .scroller')) app.composer.focus();
  };

  document.addEventListener('keydown', (event) => {
    if (event.defaultPrevented || event.isComposing || document.querySelector('dialog[open]')) return;
    const command = event.ctrlKey || event.metaKey;
    const arrow = { ArrowUp: -1, ArrowDown: 1 }[event.key];
    if (command && event.key === 'k') app.toSearch();
    else if (command && event.key === '/') keysDialog();
    else if (event.altKey && arrow) step(arrow, event.shiftKey);
    else if (event.altKey && event.code === 'KeyN') newChat(app);
    else if (command && event.key === 'ArrowUp') intoMessages();
    else if (event.key === 'Escape') {
      escape();
      return;
    } else return;
    event.preventDefault();
  });
}
