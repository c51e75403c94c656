/** Begin something: write to a person, make a group or channel, join a channel. */

import { h } from '../app/dom.js';
import { avatar, clean } from '../app/format.js';
import { t } from '../app/i18n.js';
import { icon } from '../app/icons.js';
import { checkNames } from '../app/names.js';
import { arrows, dialog, field, form } from './parts.js';

const KINDS = ['person', 'group', 'join'];

/** @param {import('../app/app.js').App} app */
export function newChat(app) {
  const state = { kind: 'person', person: '', name: '', members: [], typed: '', channel: false, id: '', busy: false, failed: '' };
  dialog({
    title: t('new'),
    view: (close, draw) => {
      const set = (values) => (Object.assign(state, values), draw());
      const go = async (act) => {
        set({ busy: true, failed: '' });
        try {
          const chat = await act();
          close();
          app.go({ chat: chat.id });
        } catch (error) {
          set({ busy: false, failed: app.why(error) });
        }
      };
      const context = { app, state, set, go };
      return [tabs(state, set), { person, group, join }[state.kind](context)];
    },
  });
}

function tabs(state, set) {
  return h(
    'div.tabs',
    { key: 'tabs', role: 'tablist' },
    KINDS.map((kind) =>
      h(
        'button',
        {
          key: kind,
          type: 'button',
          role: 'tab',
          'aria-selected': String(state.kind === kind),
          onclick: () => set({ kind, failed: '' }),
          onkeydown: (event) => arrows(event, KINDS.length),
        },
        t(`new.${kind}`),
      ),
    ),
  );
}

/** People one knows already, whose name contains what was typed. */
function known(app, typed, without = []) {
  const { store } = app;
  const wanted = typed.trim().toLowerCase();
  const names = new Set();
  for (const chat of store.ordered) {
    if (chat.other) names.add(chat.other);
    for (const { user_id: user } of chat.people ?? []) names.add(user);
  }
  names.delete(store.me);
  for (const each of without) names.delete(each);
  return [...names].filter((name) => name.toLowerCase().includes(wanted)).slice(0, 5);
}

function suggestions(app, names, choose) {
  return h(
    'div.choices',
    { key: 'choices' },
    names.map((name) =>
      h(
        'button',
        { key: name, type: 'button', onclick: () => choose(name), onkeydown: arrows },
        avatar(name, { small: true, status: app.store.seen(name)?.status }),
        clean(name),
      ),
    ),
  );
}

function person({ app, state, set, go }) {
  const begin = (name) => go(async () => (checkNames(name), app.store.dm(name)));
  return form({
    children: [
      field(t('new.person.name'), {
        name: 'person',
        value: state.person,
        autofocus: true,
        oninput: ({ target }) => set({ person: target.value }),
      }),
      suggestions(app, known(app, state.person), begin),
    ],
    action: t('new.person.go'),
    ready: Boolean(state.person.trim()),
    act: () => begin(state.person.trim()),
    ...state,
  });
}

function group({ app, state, set, go }) {
  const { members, typed } = state;
  const add = (names) =>
    set({ members: [...new Set([...members, ...names].filter((name) => name && name !== app.store.me))], typed: '' });
  const kind = state.channel ? 'channel' : 'group';
  return form({
    children: [
      field(t('new.group.name'), {
        name: 'name',
        value: state.name,
        maxlength: 128,
        autofocus: true,
        oninput: ({ target }) => set({ name: target.value }),
      }),
      people({ app, members, typed, add, set }),
      h(
        'label.check',
        { key: 'channel' },
        h('input', {
          type: 'checkbox',
          checked: state.channel,
          onchange: ({ target }) => set({ channel: target.checked }),
        }),
        h('span', null, t('new.group.channel'), h('small', null, t('new.group.channel.hint'))),
      ),
    ],
    action: t('new.group.go'),
    ready: Boolean(state.name.trim()),
    act: () => go(async () => {
      const all = [...members, ...names(typed)];
      checkNames(...all);
      return app.createGroup({ name: state.name.trim(), members: all, kind });
    }),
    busy: state.busy,
    failed: state.failed,
  });
}

const names = (typed) => typed.split(',').map((name) => name.trim()).filter(Boolean);

/** Members as they are chosen: a comma or Enter takes a name. */
export function people({ app, members, typed, add, set }) {
  const remove = (name) => set({ members: members.filter((each) => each !== name) });
  const chips = members.map((name) =>
    h(
      'button.chip',
      { key: name, type: 'button', title: t('remove', { name }), onclick: () => remove(name) },
      clean(name),
      icon('close', 14),
    ),
  );
  return [
    h('div.chips', { key: 'chips' }, chips),
    field(
      t('new.group.members'),
      {
        name: 'members',
        value: typed,
        oninput: ({ target }) =>
          target.value.endsWith(',') ? add(names(target.value)) : set({ typed: target.value }),
        onkeydown: (event) => {
          if (event.key === 'Enter' && typed.trim() && !event.isComposing) {
            event.preventDefault();
            add(names(typed));
          } else if (event.key === 'Backspace' && !typed && members.length) {
            remove(members.at(-1));
          }
        },
      },
      t('new.group.members.hint'),
    ),
    suggestions(app, known(app, typed, members), (name) => add([name])),
  ];
}

function join({ app, state, set, go }) {
  return form({
    children: field(
      t('new.join.id'),
      {
        name: 'id',
        value: state.id,
        autofocus: true,
        oninput: ({ target }) => set({ id: target.value }),
      },
      t('new.join.hint'),
    ),
    action: t('new.join.go'),
    ready: Boolean(state.id.trim()),
    act: () => go(async () => (checkNames(state.id.trim()), app.joinChannel(state.id.trim()))),
    busy: state.busy,
    failed: state.failed,
  });
}
