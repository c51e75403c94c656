/** About a chat: the person, or the group with its members and what may be done there. */

import { h } from '../app/dom.js';
import { avatar, clean } from '../app/format.js';
import { t } from '../app/i18n.js';
import { icon, iconButton } from '../app/icons.js';
import { checkNames } from '../app/names.js';
import { presenceText } from './conversation.js';
import { people } from './newchat.js';
import { confirm, dialog, field, form, menu, skeleton } from './parts.js';

/** @param {import('../app/app.js').App} app @param {import('../app/store.js').Chat} chat */
export function details(app, chat) {
  const { store } = app;
  const group = chat.kind !== 'dm';
  const seen = store.seen(chat.other);
  const head = h(
    'div.about',
    { key: 'about' },
    avatar(chat.name, { group, status: seen?.status }),
    h('h3', null, clean(chat.name)),
    h('p', null, group ? t(`kind.${chat.kind}`) : presenceText(seen)),
    chat.kind === 'channel' && h('p.id', null, h('small', null, t('group.id')), h('code', null, chat.group)),
  );
  return group ? [head, ...groupParts(app, chat)] : [head, deeds(store.knows.has('notifications') && mute(app, chat))];
}

const deeds = (...all) => h('div.deeds', { key: 'deeds' }, all);

function mute(app, chat) {
  const label = t(chat.muted ? 'unmute' : 'mute');
  return deed(chat.muted ? 'bell' : 'mute', label, () => app.attempt(() => app.mute(chat, !chat.muted)));
}

function groupParts(app, chat) {
  const { store } = app;
  const mine = chat.people?.find((each) => each.user_id === store.me)?.role;
  const manages = mine === 'owner' || mine === 'admin';
  return [
    deeds(
      mute(app, chat),
      manages && deed('edit', t('rename'), () => rename(app, chat)),
      manages && deed('add', t('add'), () => add(app, chat)),
      deed('leave', t('leave'), () => leave(app, chat), true),
    ),
    h('h3', { key: 'title' }, t('members', { n: chat.members })),
    chat.people
      ? h('ul.people', { key: 'people' }, chat.people.map((each) => member(app, chat, each, mine)))
      : skeleton(4, t('loading')),
  ];
}

const deed = (name, label, onclick, danger = false) =>
  h('button', { key: name, type: 'button', onclick, class: danger ? 'danger' : '' }, icon(name, 18), label);

function member(app, chat, { user_id: user, role }, mine) {
  const { store } = app;
  const me = user === store.me;
  const manages = mine === 'owner' || (mine === 'admin' && role !== 'owner');
  const setRole = (to) => () => app.attempt(() => app.changeGroup(chat, 'update', { roles: { [user]: to } }));
  const can = [
    !me && { icon: icon('send', 18), label: t('new.person.go'), act: () => app.go({ chat: store.dm(user).id }) },
    manages && role === 'member' && { icon: icon('people', 18), label: t('make.admin'), act: setRole('admin') },
    manages && role === 'admin' && { icon: icon('people', 18), label: t('make.member'), act: setRole('member') },
    mine === 'owner' && role !== 'owner' && { icon: icon('gear', 18), label: t('make.owner'), act: setRole('owner') },
    !me && manages && { icon: icon('trash', 18), label: t('remove.member'), act: () => remove(app, chat, user), danger: true },
  ].filter(Boolean);
  const status = store.seen(user)?.status;
  return h(
    'li',
    { key: user },
    avatar(user, { small: true, status: status === 'offline' ? '' : status }),
    h('b', null, clean(user), me && h('small', null, ` ${t('you.mark')}`)),
    role !== 'member' && h('small.role', null, t(`role.${role}`)),
    can.length > 0 &&
      iconButton('more', t('more.of', { name: clean(user) }), ({ currentTarget }) => menu(currentTarget, t('more'), can), {
        size: 18,
        'aria-haspopup': 'true',
      }),
  );
}

function remove(app, chat, user) {
  const name = clean(user);
  const act = () => app.attempt(() => app.changeGroup(chat, 'remove', { users: [user] }));
  confirm({ title: t('remove.member'), text: t('remove.text', { name }), action: t('remove.member'), act });
}

function leave(app, chat) {
  const act = () => app.attempt(() => app.leave(chat));
  const text = t(chat.kind === 'channel' ? 'leave.channel' : 'leave.text', { name: clean(chat.name) });
  confirm({ title: t('leave'), text, action: t('leave'), act });
}

/** A dialog with one form: `act` gives what is done, the dialog closes when it has worked. */
function ask(app, title, state, children, action, act) {
  dialog({
    title,
    className: 'small',
    view: (close, draw) => {
      const set = (values) => (Object.assign(state, values), draw());
      const go = async () => {
        set({ busy: true, failed: '' });
        try {
          await act(state);
          close();
        } catch (error) {
          set({ busy: false, failed: app.why(error) });
        }
      };
      const { busy, failed } = state;
      return [form({ children: children(state, set), action, act: go, ready: true, busy, failed })];
    },
  });
}

function rename(app, chat) {
  const children = (state) =>
    field(t('new.group.name'), {
      value: state.name,
      maxlength: 128,
      required: true,
      autofocus: true,
      oninput: ({ target }) => (state.name = target.value),
    });
  ask(app, t('rename'), { name: chat.name }, children, t('save'), ({ name }) =>
    app.changeGroup(chat, 'update', { name: name.trim() }));
}

function add(app, chat) {
  const children = ({ members, typed }, set) =>
    people({
      app,
      members,
      typed,
      set,
      add: (names) => set({ members: [...new Set([...members, ...names])], typed: '' }),
    });
  ask(app, t('add'), { members: [], typed: '' }, children, t('add'), ({ members, typed }) => {
    const users = [...new Set([...members, typed.trim()])].filter(Boolean);
    checkNames(...users);
    return users.length ? app.changeGroup(chat, 'add', { users }) : undefined;
  });
}
