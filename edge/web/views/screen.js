/** The three parts of the screen, and which of them a narrow one shows. */

import { conversation } from './conversation.js';
import { panel } from './panel.js';
import { sidebar } from './sidebar.js';

/** @param {import('../app/app.js').App} app */
export function screen(app) {
  const root = document.getElementById('app');
  root.replaceChildren();
  const place = (tag, id, label) => {
    const element = document.createElement(tag);
    element.id = id;
    const name = () => element.setAttribute('aria-label', app.t(label));
    name();
    app.store.on(['settings'], name);
    root.append(element);
    return element;
  };
  const nav = place('div', 'sidebar', 'chats');
  const main = place('main', 'main', 'conversation');
  const aside = place('aside', 'panel', 'panel');
  const narrow = matchMedia('(max-width: 699px)');
  const show = () => {
    const { chat } = app.store.route;
    root.dataset.view = chat ? 'chat' : 'list';
    // Where the list has the screen for itself, it is the main part.
    nav.setAttribute('role', narrow.matches && !chat ? 'main' : 'navigation');
  };
  narrow.onchange = show;
  app.store.on(['route'], show);
  sidebar(app, nav);
  conversation(app, main);
  panel(app, aside);
}
