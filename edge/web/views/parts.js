/** Parts that several views use: notices, dialogs, menus that pop up, tabs of a dialog. */

import { h, patch } from '../app/dom.js';
import { t } from '../app/i18n.js';
import { iconButton } from '../app/icons.js';

const TOAST_MS = 5000;

/** A short notice at the edge of the page, also read out; above dialogs, for it is shown after them. */
export function toast(text) {
  const place = document.getElementById('toasts');
  place.hidePopover();
  place.showPopover();
  document.getElementById('live').textContent = text;
  const note = document.createElement('div');
  note.className = 'toast';
  note.textContent = text;
  place.append(note);
  setTimeout(() => note.remove(), TOAST_MS);
}

/** Away with what is still said, in another language. */
export function untoast() {
  document.getElementById('toasts').replaceChildren();
}

/**
 * A dialog over the page. `view(close, redraw)` gives its content; the focus returns where it was.
 * @param {{title: string, className?: string, view: Function, closed?: Function}} options
 */
export function dialog({ title, className = '', view, closed }) {
  const element = document.createElement('dialog');
  element.className = `dialog ${className}`;
  element.setAttribute('aria-label', title);
  const close = () => element.close();
  const draw = () =>
    patch(element, [
      h(
        'header',
        { key: 'head' },
        h('h2', null, title),
        iconButton('close', t('close'), close),
      ),
      view(close, draw),
    ]);
  element.onclose = () => {
    element.remove();
    closed?.();
  };
  element.onclick = (event) => {
    if (event.target === element) close();
  };
  document.body.append(element);
  draw();
  element.showModal();
  element.querySelector('[autofocus]')?.focus();
  return { close, draw };
}

/** Ask whether to do what cannot be undone. */
export function confirm({ title, text, action, act }) {
  dialog({
    title,
    className: 'small',
    view: (close) => [
      h('p', { key: 'text' }, text),
      h(
        'footer',
        { key: 'foot' },
        h('button.button', { type: 'button', onclick: close, autofocus: true }, t('cancel')),
        h('button.button.danger', { type: 'button', onclick: () => (close(), act()) }, action),
      ),
    ],
  });
}

let popped = null;

/** Close what is popped up. @returns {boolean} whether there was something */
export function unpop() {
  const open = popped;
  open?.close();
  return Boolean(open);
}

/**
 * Something beside the element `anchor`; goes away with Escape or a click elsewhere.
 * @param {HTMLElement} anchor @param {{label: string, role?: string, className?: string,
 *   view: (close: () => void) => any, closed?: () => void}} options
 */
export function popover(anchor, { label, role = 'dialog', className = '', view, closed }) {
  unpop();
  const element = document.createElement('div');
  element.className = `popover ${className}`;
  element.setAttribute('role', role);
  element.setAttribute('aria-label', label);
  element.popover = 'auto';
  // In a modal dialog only what is inside of it can be used.
  (anchor.closest('dialog, main, aside, #sidebar') ?? document.body).append(element);
  const close = () => element.hidePopover();
  const self = { close, draw: () => patch(element, view(close)) };
  self.draw();
  element.ontoggle = ({ newState }) => {
    if (newState !== 'closed') return;
    if (popped === self) popped = null;
    const inside = element.contains(document.activeElement);
    element.remove();
    if (inside || document.activeElement === document.body) anchor.focus();
    closed?.();
  };
  element.showPopover();
  place(element, anchor);
  (element.querySelector('[autofocus]') ?? element.querySelector('button,input'))?.focus();
  popped = self;
  return self;
}

function place(element, anchor) {
  const at = anchor.getBoundingClientRect();
  const { offsetWidth: width, offsetHeight: height } = element;
  const above = at.top - height - 6;
  const top = at.bottom + 6 + height > innerHeight && above > 0 ? above : at.bottom + 6;
  element.style.top = `${Math.max(8, Math.min(top, innerHeight - height - 8))}px`;
  element.style.left = `${Math.max(8, Math.min(at.right - width, innerWidth - width - 8))}px`;
}

/** A menu; each of `items` is `{label, icon, act, danger}`, or null. */
export function menu(anchor, label, items) {
  return popover(anchor, {
    label,
    role: 'menu',
    className: 'menu',
    view: (close) =>
      items.filter(Boolean).map((item) =>
        h(
          'button',
          {
            key: item.label,
            type: 'button',
            role: 'menuitem',
            class: item.danger ? 'danger' : '',
            onkeydown: arrows,
            onclick: () => (close(), item.act()),
          },
          item.icon,
          item.label,
        ),
      ),
  });
}

/** Up and down in a column of buttons or links; in a grid, left and right too. */
export function arrows(event, columns = 1) {
  const step = { ArrowUp: -columns, ArrowDown: columns };
  if (columns > 1) Object.assign(step, { ArrowLeft: -1, ArrowRight: 1 });
  if (!(event.key in step) || event.altKey || event.ctrlKey || event.metaKey) return;
  const all = [...event.currentTarget.parentElement.querySelectorAll(':scope > button, :scope > a')];
  const to = all[all.indexOf(event.currentTarget) + step[event.key]];
  event.preventDefault();
  to?.focus();
}

/** A field with its label above. */
export function field(label, props, hint = '') {
  return h(
    'label.field',
    null,
    h('span', null, label),
    h('input', { type: 'text', autocomplete: 'off', ...props }),
    hint && h('small', null, hint),
  );
}

/** A form whose button is disabled while it works, and which shows what went wrong. */
export function form({ children, action, act, ready = true, busy, failed }) {
  return h(
    'form',
    {
      key: 'form',
      onsubmit: (event) => {
        event.preventDefault();
        if (ready && !busy) act(event.target);
      },
    },
    children,
    failed && h('p.failed', { role: 'alert' }, failed),
    h(
      'footer',
      null,
      h('button.button.primary', { type: 'submit', disabled: !ready || busy }, action),
    ),
  );
}

/** What stands where there is nothing to see. */
export function empty(picture, title, text, ...more) {
  return h('div.empty', { key: 'empty' }, picture, h('h2', null, title), h('p', null, text), ...more);
}

/** Grey lines while something is loaded; with a label it is said. */
export function skeleton(rows, label) {
  return h(
    'div.skeleton',
    { key: 'skeleton', role: label && 'status', 'aria-label': label },
    Array.from({ length: rows }, (_, at) =>
      h('div', { class: `bone b${at % 3}` }, h('i'), h('span', null, h('b'), h('b'))),
    ),
  );
}
