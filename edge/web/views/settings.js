/** Who one is and how the client behaves; and the keys. */

import { settings } from '../app/account.js';
import { h } from '../app/dom.js';
import { avatar, clean } from '../app/format.js';
import { LANGUAGES, t } from '../app/i18n.js';
import { icon } from '../app/icons.js';
import { confirm, dialog } from './parts.js';

const STATUSES = ['online', 'away', 'dnd', 'invisible'];
const THEMES = ['', 'light', 'dark'];

/** @param {import('../app/app.js').App} app */
export function settingsDialog(app) {
  const { store } = app;
  const state = { text: store.self.text };
  dialog({
    title: t('settings'),
    className: 'settings',
    view: (close, draw) => [
      h('div.about', { key: 'about' }, avatar(store.me, { status: store.self.status }), h('h3', null, clean(store.me))),
      choice('status', t('status'), STATUSES.map((each) => [each, t(`status.${each}`), h('i', { class: `dot ${each}` })]),
        store.self.status, async (status) => {
          await app.setStatus(status, state.text);
          draw();
        }),
      statusText(app, state),
      choice('theme', t('theme'), THEMES.map((each) => [each, t(`theme.${each || 'system'}`)]),
        settings().theme ?? '', (theme) => (app.setTheme(theme), draw())),
      choice('lang', t('language'), Object.entries(LANGUAGES), document.documentElement.lang, (lang) => {
        app.setLanguage(lang);
        close();
        settingsDialog(app);
      }),
      app.notify.supported && notifications(app, draw),
      h(
        'footer',
        { key: 'foot' },
        h('button.button', { type: 'button', onclick: () => (close(), keysDialog()) }, t('keys')),
        h('button.button.danger', { type: 'button', onclick: () => (close(), leave(app)) }, icon('leave', 18), t('signout')),
      ),
    ],
  });
}

/** One of several, as radio buttons in a row. */
function choice(name, title, options, chosen, choose) {
  return h(
    'fieldset',
    { key: name },
    h('legend', null, title),
    h(
      'div.segments',
      null,
      options.map(([value, label, mark]) =>
        h(
          'label',
          { key: value },
          h('input', { type: 'radio', name, value, checked: value === chosen, onchange: () => choose(value) }),
          h('span', null, mark, label),
        ),
      ),
    ),
  );
}

function statusText(app, state) {
  return h(
    'form',
    {
      key: 'text',
      onsubmit: (event) => {
        event.preventDefault();
        app.setStatus(app.store.self.status, state.text.trim());
        app.toast(t('saved'));
      },
    },
    h(
      'label.field',
      null,
      h('span', null, t('status.text')),
      h('input', {
        type: 'text',
        maxlength: 200,
        value: state.text,
        placeholder: t('status.text.hint'),
        oninput: ({ target }) => (state.text = target.value),
      }),
    ),
    h('button.button', { type: 'submit' }, t('save')),
  );
}

function notifications(app, draw) {
  return h(
    'label.check',
    { key: 'notify' },
    h('input', {
      type: 'checkbox',
      checked: app.notify.on,
      onchange: async ({ target }) => {
        const on = await app.notify.turn(target.checked);
        if (target.checked && !on) app.toast(t('notify.refused'));
        draw();
      },
    }),
    h('span', null, t('notify'), h('small', null, t('notify.hint'))),
  );
}

function leave(app) {
  const waiting = app.client.outbox.writes.length;
  const text = waiting ? t('signout.waiting', { n: waiting }) : t('signout.text');
  confirm({ title: t('signout'), text, action: t('signout'), act: () => app.signOut() });
}

const KEYS = [
  ['search', 'Ctrl K'],
  ['next', 'Alt ↑ ↓'],
  ['unread', 'Alt Shift ↑ ↓'],
  ['new', 'Alt N'],
  ['send', 'Enter'],
  ['line', 'Shift Enter'],
  ['edit', '↑'],
  ['complete', '@ :'],
  ['move', 'Ctrl ↑ ↓'],
  ['message', 'R E T C + M Del'],
  ['escape', 'Esc'],
  ['help', 'Ctrl /'],
];

export function keysDialog() {
  dialog({
    title: t('keys'),
    className: 'keys',
    view: () => [
      h(
        'dl',
        { key: 'keys' },
        KEYS.map(([name, keys]) => [
          h('dt', null, keys.split(' ').map((key) => h('kbd', null, key))),
          h('dd', null, t(`keys.${name}`)),
        ]),
      ),
    ],
  });
}
