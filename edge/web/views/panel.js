/** What stands beside a conversation: a thread, or details of the chat. */

import { h, patch } from '../app/dom.js';
import { t } from '../app/i18n.js';
import { iconButton } from '../app/icons.js';
import { rows } from '../app/timeline.js';
import { VirtualList } from '../app/vlist.js';
import { Composer } from './composer.js';
import { deeds } from './deeds.js';
import { details } from './details.js';
import { estimate, rowView } from './message.js';

/** @param {import('../app/app.js').App} app @param {HTMLElement} root */
export function panel(app, root) {
  const { store } = app;
  const thread = threadPanel(app);
  let before = null;

  function draw() {
    const { chat } = store;
    const { panel: kind } = store.route;
    root.hidden = !chat || !kind;
    if (root.hidden) {
      before?.focus();
      before = null;
      patch(root, []);
      return;
    }
    const opened = root.dataset.kind !== `${chat.id} ${kind} ${store.route.thread}`;
    root.dataset.kind = `${chat.id} ${kind} ${store.route.thread}`;
    const title = t(kind === 'thread' ? 'thread' : 'details');
    root.setAttribute('aria-label', title);
    const close = () => app.go({ chat: chat.id });
    patch(root, [
      h('header.bar', { key: 'head' }, h('h2', null, title), iconButton('close', t('close'), close)),
      kind === 'thread'
        ? h('div.thread', { key: 'thread', mount: (element) => element.append(...thread.parts) })
        : h('div.details', { key: `details ${chat.id}` }, details(app, chat)),
    ]);
    if (kind === 'thread') thread.draw(chat, store.route.thread, opened);
    else if (opened) {
      before = document.activeElement;
      root.querySelector('button').focus();
    }
  }

  store.on(['route', 'settings', 'people', 'presence'], draw);
  store.on(['timeline'], () => {
    if (store.chat && store.route.panel === 'thread') thread.draw(store.chat, store.route.thread);
  });
}

function threadPanel(app) {
  const { store } = app;
  const scroller = document.createElement('div');
  scroller.className = 'scroller';
  scroller.tabIndex = 0;
  const composer = new Composer(app, { inThread: true, sent: () => list.toEnd() });
  const chat = () => store.chat;
  const jump = (id) => {
    const row = list.rows.find((each) => each.item?.id === id);
    if (row) list.to(row.key);
    else app.jump(chat(), { id });
  };
  const act = deeds(app, { chat, composer, jump, hold: () => list.hold() });
  const list = new VirtualList({
    scroller,
    label: () => t('thread'),
    hanging: true,
    estimate,
    render: (row) => rowView({ app, chat: chat(), act, flash: '', inThread: true }, row),
    moved: ({ start }) => {
      const timeline = chat()?.threads.get(store.route.thread);
      if (start && timeline?.items.length > 1) app.loadOlder(chat(), timeline, store.route.thread);
    },
  });

  function draw(of, root, opened = false) {
    const timeline = of.threads.get(root);
    if (!timeline) return;
    composer.show(of, root);
    const writes = app.client.outbox.writes.filter((entry) => entry.lane === of.id);
    const first = of.timeline.get(root);
    if (first) timeline.merge([first]);
    const found = rows(timeline, { writes, me: store.me, thread: root });
    const loading = timeline.loading && [{ key: 'loading', kind: 'loading' }];
    const failed = timeline.failed && [
      { key: 'failed', kind: 'failed', retry: () => app.openThread(of, root) },
    ];
    list.set([...found, ...(loading || failed || [])]);
    if (!opened) return;
    list.toEnd();
    composer.fit();
    composer.focus();
  }

  return { parts: [scroller, composer.element], draw };
}
