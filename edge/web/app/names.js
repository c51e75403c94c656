/** What names of people and ids may be, said before a server is asked. */

import { HikyakuError } from '../hikyaku.js';
import { clean, short } from './format.js';
import { t } from './i18n.js';

const MOST_BYTES = 64;
const SHOWN = 24;

/** What is wrong with a name, in words; empty if nothing is. */
export function nameFault(name) {
  const bytes = new TextEncoder().encode(name).length;
  const values = { name: short(clean(name).replace(/\p{Cc}/gu, '\uFFFD'), SHOWN), n: bytes };
  if (/\p{Cc}/u.test(name)) return t('name.control', values);
  return bytes > MOST_BYTES ? t('name.long', values) : '';
}

/** Throws for the first of these names that cannot be one. */
export function checkNames(...names) {
  const wrong = names.map(nameFault).find(Boolean);
  if (wrong) throw new HikyakuError('name', wrong);
}
