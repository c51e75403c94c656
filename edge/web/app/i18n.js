/** Words in the language of the person. */

import { useLanguage } from './format.js';
import { english } from '../lang/en.js';
import { japanese } from '../lang/ja.js';

export const LANGUAGES = { en: 'English', ja: '日本語' };
const WORDS = { en: english, ja: japanese };

let words = english;
let plurals = new Intl.PluralRules('en');

/** The language that was chosen, else the browser's, if we speak it. */
export function preferred(chosen) {
  const wanted = [chosen, ...navigator.languages].map((tag) => String(tag ?? '').slice(0, 2));
  return wanted.find((tag) => tag in LANGUAGES) ?? 'en';
}

/** @param {keyof LANGUAGES} lang */
export function speak(lang) {
  words = WORDS[lang];
  plurals = new Intl.PluralRules(lang);
  useLanguage(lang);
  document.documentElement.lang = lang;
}

/**
 * The text of a key, with `{name}` filled in. A text for one and for more is chosen by `n`.
 * @param {string} key @param {Object<string, any>} [values] @returns {string}
 */
export function t(key, values = {}) {
  let text = words[key] ?? key;
  if (Array.isArray(text)) text = text[plurals.select(values.n) === 'one' ? 0 : 1];
  return text.replace(/\{(\w+)\}/g, (_, name) => values[name] ?? '');
}
