/** Who is signed in, in this tab; settings of this device; where tokens come from. */

import { HikyakuError } from '../hikyaku.js';

const ACCOUNT = 'hikyaku.account';
const SETTINGS = 'hikyaku.settings';

/** Whether this server makes tokens for anyone. */
export const development =
  document.querySelector('meta[name="hikyaku-mode"]')?.content === 'development';

function read(storage, key) {
  try {
    return JSON.parse(storage.getItem(key));
  } catch {
    return null; // What cannot be read counts as never written.
  }
}

/** @typedef {{user: string, token?: string}} Account without a token: development */

/** The account of this tab, else the one signed in last. @returns {Account|null} */
export function account() {
  const given = new URLSearchParams(location.hash.slice(1)).get('token');
  if (given) {
    history.replaceState(null, '', location.pathname + location.search);
    const user = userOf(given);
    if (user) return remember({ user, token: given });
    sessionStorage.setItem('hikyaku.why', 'unreadable');
  }
  const found = read(sessionStorage, ACCOUNT) ?? read(localStorage, ACCOUNT);
  return found?.user && (found.token || development) ? found : null;
}

/** @param {Account} account */
export function remember(account) {
  for (const storage of [sessionStorage, localStorage]) {
    storage.setItem(ACCOUNT, JSON.stringify(account));
  }
  return account;
}

export function forget() {
  sessionStorage.removeItem(ACCOUNT);
  localStorage.removeItem(ACCOUNT);
}

/** The user of a token; empty if it is none. */
export function userOf(token) {
  try {
    const body = token.split('.')[1].replace(/-/g, '+').replace(/_/g, '/');
    const bytes = Uint8Array.from(atob(body), (char) => char.charCodeAt(0));
    return String(JSON.parse(new TextDecoder().decode(bytes)).sub ?? '');
  } catch {
    return '';
  }
}

/** What the client is given as `token`. @param {Account} account @param {URL} base */
export function tokenSource({ user, token }, base) {
  if (token) return token;
  return async () => {
    const body = JSON.stringify({ user_id: user });
    const answer = await fetch(new URL('v1/dev/token', base), { method: 'POST', body });
    if (answer.ok) return (await answer.json()).token;
    const retryable = answer.status >= 500;
    throw new HikyakuError('http', `no token: HTTP ${answer.status}`, { retryable });
  };
}

/** @returns {{theme?: string, lang?: string, device?: string, notify?: boolean}} */
export function settings() {
  return read(localStorage, SETTINGS) ?? {};
}

export function change(values) {
  const all = { ...settings(), ...values };
  localStorage.setItem(SETTINGS, JSON.stringify(all));
  return all;
}

/** The id of this browser, as a device of the user. */
export function device() {
  return settings().device ?? change({ device: `web-${crypto.randomUUID().slice(0, 8)}` }).device;
}
