/** Line icons, drawn in a square of 24. */

import { h } from './dom.js';

const PATHS = {
  add: 'M12 5v14M5 12h14',
  attach: 'm20 11-8.4 8.4a5 5 0 0 1-7-7L13 4a3.3 3.3 0 0 1 4.7 4.7l-8.4 8.4a1.7 1.7 0 0 1-2.4-2.4L14.5 7',
  back: 'm15 5-7 7 7 7',
  bell: 'M6 16v-5a6 6 0 0 1 12 0v5l2 2H4zM10 21h4',
  check: 'm4 12.5 5 5L20 6.5',
  close: 'M6 6l12 12M18 6 6 18',
  copy: 'M9 9h11v11H9zM5 15H4V4h11v1',
  down: 'm5 9 7 7 7-7',
  download: 'M12 4v11m-5-4 5 5 5-5M5 20h14',
  edit: 'm4 20 1-4L16 5l3 3L8 19zM14 7l3 3',
  file: 'M6 3h8l4 4v14H6zM14 3v4h4',
  gear: 'M4 7h9m4 0h3M4 17h3m4 0h9M15 5v4M9 15v4',
  info: 'M12 11v6M12 7.5v.1M21 12a9 9 0 1 1-18 0 9 9 0 0 1 18 0',
  leave: 'M14 4H5v16h9M10 12h10m-4-4 4 4-4 4',
  more: 'M5 11.500v1M4.500 12h1M12 11.500v1M11.500 12h1M19 11.500v1M18.500 12h1',
  mute: 'M6 16v-5a6 6 0 0 1 9-5.200M18 11v5l2 2H8M10 21h4M4 4l16 16',
  people: 'M9 11a3.500 3.500 0 1 0 0-7 3.500 3.500 0 0 0 0 7M3 20c0-4 3-6 6-6s6 2 6 6M16 4.500a3.500 3.500 0 0 1 0 6.500M18 14.500c2 1 3 3 3 5.500',
  quote: 'M10 6 4 12l6 6M4 12h9c4 0 7 2 7 7',
  search: 'M17 10.500a6.500 6.500 0 1 1-13 0 6.500 6.500 0 0 1 13 0M15.500 15.500 21 21',
  send: 'M5 12h13m-6-7 7 7-7 7',
  smile: 'M21 12a9 9 0 1 1-18 0 9 9 0 0 1 18 0M8.500 14.500c2 2.500 5 2.500 7 0M9 9.500v.1M15 9.500v.1',
  thread: 'M4 5h16v11h-9l-5 4v-4H4zM8 9h8M8 12h5',
  ticks: 'm2 12.500 4.500 5L15 7M11.500 16l1.500 1.500L22 7',
  trash: 'M5 7h14M10 7V4h4v3M7 7l1 13h8l1-13',
  wait: 'M12 7v5l3 2M21 12a9 9 0 1 1-18 0 9 9 0 0 1 18 0',
  warn: 'M12 4 2.500 20h19zM12 10v4M12 17v.1',
};

/** @param {keyof PATHS} name */
export function icon(name, size = 20) {
  const box = { viewBox: '0 0 24 24', width: size, height: size, 'aria-hidden': 'true' };
  return h('svg', { class: 'icon', ...box }, h('path', { d: PATHS[name] }));
}

/** A button that is only an icon; its name is read out and shown as a hint. */
export function iconButton(name, label, onclick, more = {}) {
  const { size, ...props } = more;
  return h(
    'button',
    { type: 'button', 'aria-label': label, title: label, onclick, ...props, class: `icon-button ${props.class ?? ''}` },
    icon(name, size),
  );
}

/** The mark of Hikyaku: a courier's letter box on its pole, under way. */
export function logo(size = 40) {
  return h(
    'svg',
    { viewBox: '0 0 64 64', width: size, height: size, class: 'logo', 'aria-hidden': 'true' },
    h('rect', { width: 64, height: 64, rx: 16, class: 'logo-ground' }),
    h('path', { d: 'M12 47 50 17', class: 'logo-line' }),
    h('path', { d: 'M31 13h20v20H31z', class: 'logo-box', transform: 'rotate(-8 41 23)' }),
    h('path', { d: 'm31 14 10.500 9.500L49 12', class: 'logo-fold', transform: 'rotate(-2 41 23)' }),
    h('path', { d: 'M12 25h11M9 34h9', class: 'logo-line thin' }),
  );
}
