/** When to connect again and when to ask again: plain functions, without clock or network. */

export const CLOSE = Object.freeze({
  RESTART: 1012,
  LOST: 1006,
  UNAUTHORIZED: 4001,
  TOKEN_EXPIRED: 4002,
  FORBIDDEN: 4003,
  TOO_MANY_CONNECTIONS: 4009,
  FRAME_TOO_LARGE: 4013,
  MALFORMED: 4022,
  RATE_LIMITED: 4129,
});

export const RETRYABLE = new Set(['rate_limited', 'overloaded', 'unavailable', 'timeout']);

const MAX_MS = 30_000;
/** An edge that was lost is back, or another one answers, within a second. */
const LOST_FIRST_MS = 500;
const TOKEN_TRIES = 3;
const RETRY_FIRST_MS = 250;
const RETRY_MAX_MS = 5_000;

/** Up to 1, 2, 4, … 30 s after the 1st, 2nd, 3rd … failure. `chance` is in [0, 1). */
export function backoffMs(failures, chance, firstMs = 1000) {
  return Math.min(firstMs * 2 ** (Math.min(Math.max(failures, 1), 12) - 1), MAX_MS) * chance;
}

/**
 * What follows the end of a connection.
 * @param {{code: number, reason?: string}} ended
 * @param {{failures: number, refusals: number, canRenew: boolean, chance: number}} past `failures`
 *   counts connections, this one too, since the last that lived for 10 s; `refusals` counts
 *   the tokens refused in a row, this one too.
 * @returns {{stop: true} | {stop: false, delayMs: number, newToken: boolean}}
 */
export function afterClose({ code, reason = '' }, { failures, refusals, canRenew, chance }) {
  const repeated = failures > 1 ? backoffMs(failures - 1, chance) : 0;
  const again = (delayMs, newToken = false) => ({ stop: false, delayMs, newToken });
  if (code === CLOSE.UNAUTHORIZED || code === CLOSE.TOKEN_EXPIRED) {
    return canRenew && refusals <= TOKEN_TRIES ? again(repeated, true) : { stop: true };
  }
  if (code >= 4000 && code < 4100) return { stop: true };
  if (code >= 4200 && code < 4300) return again(repeated);
  const delay = backoffMs(failures, chance, code < 4000 ? LOST_FIRST_MS : undefined);
  return again(code === CLOSE.RATE_LIMITED ? delay + retryAfterMs(reason) : delay);
}

/** `retry_after_ms` in the reason of a close, or 0. */
export function retryAfterMs(reason) {
  const found = /retry_after_ms\D{0,4}(\d{1,9})/.exec(reason);
  return found ? Number(found[1]) : 0;
}

/** How long until a refused request is sent again; the server's own word goes first. */
export function retryDelayMs(error, attempts, chance) {
  if (error.retry_after_ms != null) return Math.max(error.retry_after_ms, 1);
  const most = Math.min(RETRY_FIRST_MS * 2 ** Math.min(attempts, 10), RETRY_MAX_MS);
  return most * (0.5 + chance / 2);
}
