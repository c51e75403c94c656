/** Times, sizes, names and colours as people read them. */

import { h } from './dom.js';

const DAY_MS = 86_400_000;
const COLOURS = 10;
const formats = new Map();
let language = 'en';

/** @param {string} lang */
export function useLanguage(lang) {
  language = navigator.languages.find((tag) => tag.startsWith(lang)) ?? lang;
  formats.clear();
}

function format(options) {
  const name = JSON.stringify(options);
  if (!formats.has(name)) formats.set(name, new Intl.DateTimeFormat(language, options));
  return formats.get(name);
}

export const time = (ms) => format({ hour: 'numeric', minute: '2-digit' }).format(ms);

export const full = (ms) => format({ dateStyle: 'full', timeStyle: 'short' }).format(ms);

const midnight = (ms) => new Date(ms).setHours(0, 0, 0, 0);

/** Days between two times, by the calendar of this place. */
const daysAgo = (ms) => Math.round((midnight(Date.now()) - midnight(ms)) / DAY_MS);

/** "Today", "Monday", "3 March". */
export function day(ms, t) {
  const ago = daysAgo(ms);
  if (ago === 0) return t('day.today');
  if (ago === 1) return t('day.yesterday');
  if (ago > 1 && ago < 7) return format({ weekday: 'long' }).format(ms);
  return format({ day: 'numeric', month: 'long', ...year(ms) }).format(ms);
}

/** As short as in a list: the time today, else the day. */
export function when(ms, t) {
  const ago = daysAgo(ms);
  if (ago <= 0) return time(ms);
  if (ago === 1) return t('day.yesterday');
  if (ago < 7) return format({ weekday: 'short' }).format(ms);
  return format({ day: 'numeric', month: 'short', ...year(ms) }).format(ms);
}

function year(ms) {
  return new Date(ms).getFullYear() === new Date().getFullYear() ? {} : { year: 'numeric' };
}

export function size(bytes) {
  const units = ['B', 'kB', 'MB', 'GB'];
  let at = 0;
  for (; bytes >= 1000 && at < units.length - 1; at++) bytes /= 1000;
  const digits = at > 0 && bytes < 10 ? 1 : 0;
  return `${new Intl.NumberFormat(language, { maximumFractionDigits: digits }).format(bytes)} ${units[at]}`;
}

export const list = (words) => new Intl.ListFormat(language, { style: 'short' }).format(words);

/** Direction marks in a name could turn around what stands beside it. */
export const clean = (name) => name.replace(/[\u202A-\u202E\u2066-\u2069\u200E\u200F]/g, '');

/** Not more than so many characters. */
export function short(text, most) {
  const chars = [...text];
  return chars.length > most ? `${chars.slice(0, most).join('')}…` : text;
}

function initials(name) {
  const words = clean(name).split(/[\s._-]+/u).filter(Boolean);
  const [first = '?'] = [...(words[0] ?? '?')];
  const second = words.length > 1 ? [...words[1]][0] : '';
  return /\p{Script=Han}|\p{Script=Hiragana}|\p{Script=Katakana}/u.test(first)
    ? first
    : (first + second).toUpperCase();
}

function colour(name) {
  let sum = 7;
  for (const char of name) sum = (sum * 31 + char.codePointAt(0)) % 65_521;
  return sum % COLOURS;
}

/** A round picture for a person, a square one for a group. */
export function avatar(name, { group = false, status = '', small = false } = {}) {
  const kind = `${group ? ' group' : ''}${small ? ' small' : ''}`;
  return h(
    'span',
    { class: `avatar tint-${colour(name)}${kind}`, 'aria-hidden': 'true' },
    group ? h('span', null, [...clean(name)][0]?.toUpperCase()) : h('span', null, initials(name)),
    status && h('i', { class: `dot ${status}` }),
  );
}
