/** The first screen: choose a name in development, else give a token. */

import { development, userOf } from '../app/account.js';
import { h, patch } from '../app/dom.js';
import { t } from '../app/i18n.js';
import { logo } from '../app/icons.js';
import { nameFault } from '../app/names.js';
import { field, form } from './parts.js';

/** Why one is not signed in, or not as the link said. Said once. */
export function reason() {
  const why = sessionStorage.getItem('hikyaku.why');
  sessionStorage.removeItem('hikyaku.why');
  return why ? t(`signin.${why}`) : '';
}

/** @param {{start: (account: import('../app/account.js').Account) => Promise<any>}} options */
export function signIn({ start }) {
  const root = document.getElementById('app');
  const state = { token: !development, value: '', failed: reason(), busy: false };

  const act = async () => {
    const value = state.value.trim();
    const user = state.token ? userOf(value) : value;
    const failed = user ? nameFault(user) : t('signin.notoken');
    if (failed) {
      state.failed = failed;
      draw();
      return;
    }
    state.busy = true;
    draw();
    root.removeAttribute('data-signin');
    root.replaceChildren();
    await start(state.token ? { user, token: value } : { user });
  };

  const draw = () => patch(root, view());

  const view = () =>
    h(
      'main.signin',
      { key: 'signin' },
      h('div.mark', null, logo(64), h('h1', null, 'Hikyaku'), h('p', null, t('signin.text'))),
      form({
        children: state.token
          ? field(t('signin.token'), input('password'), t('signin.token.hint'))
          : field(t('signin.name'), input('text'), t('signin.name.hint')),
        action: t('signin.go'),
        act,
        ready: Boolean(state.value.trim()),
        busy: state.busy,
        failed: state.failed,
      }),
      development &&
        h(
          'button.link',
          { type: 'button', onclick: () => (Object.assign(state, { token: !state.token, value: '', failed: '' }), draw()) },
          state.token ? t('signin.byname') : t('signin.bytoken'),
        ),
    );

  const input = (type) => ({
    key: type,
    type,
    name: type === 'text' ? 'name' : 'token',
    value: state.value,
    mount: (element) => element.focus(),
    oninput: ({ target }) => {
      const was = Boolean(state.value.trim());
      state.value = target.value;
      if (was !== Boolean(state.value.trim()) || state.failed) {
        state.failed = '';
        draw();
      }
    },
  });

  root.replaceChildren();
  root.dataset.signin = '';
  draw();
}
