/** Completion while writing: `@` for people, `:` for emoji. The focus stays in the text. */

import { h, patch } from '../app/dom.js';
import { matching } from '../app/emoji.js';
import { avatar, clean } from '../app/format.js';
import { t } from '../app/i18n.js';

const SHOWN = 6;
const BEGUN = /(^|[\s(（「])([@:])([^\s@:]{0,40})$/u;

/**
 * @param {HTMLTextAreaElement} text
 * @param {(from: number, to: number, put: string) => void} put
 * @returns {{close: () => void, key: (event: KeyboardEvent) => boolean, open: boolean}|null}
 */
export function suggest(app, chat, text, put) {
  const to = text.selectionStart;
  const begun = BEGUN.exec(text.value.slice(0, to));
  if (!begun) return null;
  const [, , sign, typed] = begun;
  const choices = sign === '@' ? people(app, chat, typed) : emoji(typed);
  if (!choices.length) return null;
  const from = to - typed.length - 1;

  const element = document.createElement('div');
  element.className = 'suggest';
  element.id = 'suggestions';
  element.setAttribute('role', 'listbox');
  element.setAttribute('aria-label', t('suggestions'));
  let at = 0;
  const self = { open: true, close, key };
  const draw = () => {
    patch(element, choices.map((choice, number) => option(choice, number, number === at, take)));
    text.setAttribute('aria-activedescendant', `suggestion-${at}`);
  };

  function take(number) {
    close();
    put(from, to, `${choices[number].put} `);
  }

  function close() {
    self.open = false;
    element.remove();
    text.removeAttribute('aria-controls');
    text.removeAttribute('aria-activedescendant');
  }

  function key(event) {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step) {
      at = (at + step + choices.length) % choices.length;
      draw();
    } else if (event.key === 'Enter' && choices[at].put === sign + typed) {
      close(); // It is there already: the Enter is for the message.
      return false;
    } else if (event.key === 'Enter' || event.key === 'Tab') take(at);
    else if (event.key === 'Escape') close();
    else return false;
    event.preventDefault();
    event.stopPropagation();
    return true;
  }

  text.setAttribute('aria-controls', 'suggestions');
  text.closest('form').prepend(element);
  draw();
  return self;
}

function option({ picture, name, hint }, number, selected, take) {
  return h(
    'div',
    {
      key: name,
      id: `suggestion-${number}`,
      role: 'option',
      'aria-selected': String(selected),
      onpointerdown: (event) => {
        event.preventDefault(); // The text keeps the focus.
        take(number);
      },
    },
    picture,
    h('b', null, name),
    hint && h('small', null, hint),
  );
}

/** Who can be mentioned in a chat. */
export function mentionable(chat) {
  return chat.kind === 'dm' ? [chat.other] : (chat.people ?? []).map((each) => each.user_id);
}

function people({ store }, chat, typed) {
  const wanted = typed.toLowerCase();
  return mentionable(chat)
    .filter((name) => name !== store.me && name.toLowerCase().includes(wanted))
    .sort((a, b) => fit(b, wanted) - fit(a, wanted))
    .slice(0, SHOWN)
    .map((name) => {
      const status = store.seen(name)?.status;
      return { name: clean(name), put: `@${name}`, picture: avatar(name, { small: true, status }) };
    });
}

/** What is typed in full comes first, then what begins so. */
function fit(name, wanted) {
  const lower = name.toLowerCase();
  return Number(lower === wanted) + Number(lower.startsWith(wanted));
}

function emoji(typed) {
  if (typed.length < 2) return [];
  return matching(typed, SHOWN).map(({ char, name }) => ({
    name: `:${name}:`,
    put: char,
    picture: h('span.emoji-char', null, char),
  }));
}
