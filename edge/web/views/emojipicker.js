/** A choice of emoji that pops up, with a search by name. */

import { h } from '../app/dom.js';
import { QUICK, matching } from '../app/emoji.js';
import { t } from '../app/i18n.js';
import { arrows, popover } from './parts.js';

const COLUMNS = 8;

/** @param {HTMLElement} anchor @param {(emoji: string) => void} chosen */
export function pickEmoji(anchor, chosen) {
  let typed = '';
  const view = (close) => {
    const choose = (char) => (close(), chosen(char));
    const button = ({ char, name }) =>
      h(
        'button',
        {
          key: char,
          type: 'button',
          title: name,
          'aria-label': name ?? char,
          onclick: () => choose(char),
          onkeydown: (event) => arrows(event, COLUMNS),
        },
        char,
      );
    const found = matching(typed.trim());
    return [
      h('input', {
        key: 'search',
        type: 'search',
        autofocus: true,
        placeholder: t('emoji.search'),
        'aria-label': t('emoji.search'),
        oninput: ({ target }) => {
          typed = target.value;
          popup.draw();
        },
        onkeydown: (event) => {
          if (event.key === 'Enter' && found.length) {
            event.preventDefault(); // It is no new line where one writes.
            choose(found[0].char);
          }
          if (event.key === 'ArrowDown') {
            event.preventDefault();
            event.target.parentElement.querySelector('.grid button')?.focus();
          }
        },
      }),
      !typed && h('div.quick', { key: 'quick' }, QUICK.map((char) => button({ char }))),
      found.length
        ? h('div.grid', { key: 'grid' }, found.map(button))
        : h('p', { key: 'none' }, t('emoji.none')),
    ];
  };
  const popup = popover(anchor, { label: t('emoji'), className: 'emoji', view });
}
