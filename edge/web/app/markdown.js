/**
 * A subset of Markdown, made into elements: **bold**, *italic*, ~~struck~~, `code`, fenced code,
 * quotes, lists, links, addresses, @mentions. What a message holds is never read as HTML.
 */

import { h } from './dom.js';

const SAFE = /^(https?:\/\/|mailto:)/i;
const MAX_DEPTH = 6;

const INLINE = [
  ['code', /`([^`\n]+)`/],
  ['link', /\[([^[\]\n]{1,500})\]\(<?((?:https?:\/\/|mailto:)[^\s<>()]+(?:\([^\s<>()]*\)[^\s<>()]*)*)>?\)/i],
  ['address', /https?:\/\/[^\s<>"'`]+[^\s<>"'`.,;:!?、。）」]/i],
  ['strong', /\*\*(?=\S)([^\n]*?\S)\*\*/],
  ['strike', /~~(?=\S)([^\n]*?\S)~~/],
  ['em', /\*(?=[^\s*])([^*\n]*?[^\s*])\*/],
  ['em', /(?<![\p{L}\p{N}_])_(?=[^\s_])([^_\n]*?[^\s_])_(?![\p{L}\p{N}_])/u],
];

/**
 * @param {string} text
 * @param {{mentions?: string[], me?: string, copy?: (text: string) => void, labels?: object}} [options]
 * @returns {object[]} elements for `patch`
 */
export function markdown(text, options = {}) {
  return blocks(text.replace(/\r\n?/g, '\n').split('\n'), { ...options, depth: 0 });
}

function blocks(lines, options) {
  const found = [];
  let paragraph = [];
  const close = () => {
    if (paragraph.length) found.push(h('p', null, inline(paragraph.join('\n'), options)));
    paragraph = [];
  };
  for (let at = 0; at < lines.length; at++) {
    const line = lines[at];
    const fence = /^\s*```(\w*)\s*$/.exec(line);
    if (fence) {
      const end = lines.findIndex((each, later) => later > at && /^\s*```\s*$/.test(each));
      close();
      found.push(code(lines.slice(at + 1, end < 0 ? undefined : end).join('\n'), options));
      at = end < 0 ? lines.length : end;
    } else if (/^>/.test(line) && options.depth < MAX_DEPTH) {
      close();
      const start = at;
      while (at + 1 < lines.length && /^>/.test(lines[at + 1])) at++;
      const inner = lines.slice(start, at + 1).map((each) => each.replace(/^> ?/, ''));
      found.push(h('blockquote', null, blocks(inner, { ...options, depth: options.depth + 1 })));
    } else if (item(line)) {
      close();
      const start = at;
      while (at + 1 < lines.length && item(lines[at + 1])) at++;
      found.push(...lists(lines.slice(start, at + 1).map(item), options));
    } else if (line.trim() === '') {
      close();
    } else {
      paragraph.push(line);
    }
  }
  close();
  return found;
}

function item(line) {
  const found = /^([ \t]{0,12})(?:[-*]|(\d{1,9})[.)]) +(\S.*)$/.exec(line);
  if (!found) return null;
  const [, before, number, text] = found;
  return { indent: before.replace(/\t/g, '    ').length, ordered: Boolean(number), number: Number(number), text };
}

/** Lists of these items; what stands further in belongs to the item above it. */
function lists(items, options) {
  const found = [];
  for (let at = 0; at < items.length; ) {
    const { indent, ordered, number } = items[at];
    const views = [];
    while (items[at]?.ordered === ordered) {
      const { text } = items[at];
      const start = ++at;
      while (items[at]?.indent > indent + 1) at++;
      views.push(h('li', null, inline(text, options), lists(items.slice(start, at), options)));
    }
    found.push(h(ordered ? 'ol' : 'ul', ordered && number !== 1 ? { start: number } : null, views));
  }
  return found;
}

function code(text, { copy, labels }) {
  const button = copy && { type: 'button', class: 'copy', onclick: () => copy(text) };
  return h(
    'div.code',
    null,
    h('pre', { tabindex: '0' }, h('code', null, text)),
    button && h('button', button, labels?.copy),
  );
}

function inline(text, options) {
  if (!text) return [];
  let best = null;
  if (options.depth < MAX_DEPTH) {
    for (const [kind, pattern] of INLINE) {
      const found = pattern.exec(text);
      if (found && (!best || found.index < best.found.index)) best = { kind, found };
    }
  }
  if (!best) return plain(text, options);
  const { kind, found } = best;
  return [
    ...plain(text.slice(0, found.index), options),
    element(kind, found, { ...options, depth: options.depth + 1 }),
    ...inline(text.slice(found.index + found[0].length), options),
  ];
}

function element(kind, found, options) {
  switch (kind) {
    case 'code':
      return h('code', null, found[1]);
    case 'link':
      return link(found[2], found[1], options);
    case 'address':
      return anchor(found[0], found[0]);
    case 'strong':
      return h('strong', null, inline(found[1], options));
    case 'strike':
      return h('s', null, inline(found[1], options));
    default:
      return h('em', null, inline(found[1], options));
  }
}

function anchor(address, ...children) {
  if (!SAFE.test(address)) return h('span', null, ...children);
  const away = { href: address, target: '_blank', rel: 'noopener noreferrer nofollow' };
  return h('a', { ...away, title: address }, ...children);
}

/** A text that itself looks like another address would deceive: then both are shown. */
function link(address, text, options) {
  const looks = /[\w-]+\.[a-z]{2,}/i.test(text);
  const shown = looks && !address.toLowerCase().includes(text.toLowerCase().trim());
  return anchor(address, inline(text, { ...options, depth: MAX_DEPTH }), shown && ` (${address})`);
}

function plain(text, { mentions = [], me }) {
  if (!text) return [];
  for (const name of longestFirst(mentions)) {
    const at = text.indexOf(`@${name}`);
    if (at < 0) continue;
    const rest = { mentions, me };
    const mine = name === me;
    return [
      ...plain(text.slice(0, at), rest),
      h('span', { class: mine ? 'mention self' : 'mention' }, `@${name}`),
      ...plain(text.slice(at + name.length + 1), rest),
    ];
  }
  return [text];
}

/** Which of these names a text mentions: of `@anna-maria` it is not `anna`. @returns {string[]} */
export function mentioned(text, names) {
  let rest = text;
  return longestFirst(names).filter((name) => {
    const before = rest;
    rest = rest.replaceAll(`@${name}`, '');
    return rest !== before;
  });
}

const longestFirst = (names) => [...names].sort((a, b) => b.length - a.length);

/** One line without marks, for previews. */
export function flat(text) {
  return text
    .replace(/```\w*\n?/g, '')
    .replace(/\[([^[\]\n]*)\]\([^()\s]*\)/g, '$1')
    .replace(/(\*\*|~~|`|^> ?)/gm, '')
    .replace(/\s+/g, ' ')
    .trim();
}

/** Whether a message is only a few emoji, which are shown large. */
export function onlyEmoji(text) {
  return /^(\p{Extended_Pictographic}(\uFE0F|\u200D\p{Extended_Pictographic}|\p{Emoji_Modifier})*\s*){1,3}$/u.test(text);
}
