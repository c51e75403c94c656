/** Everything that can go wrong, as one class with a `code`. */

/**
 * Codes of the server (`docs/protocol.md`), and `offline` (no answer, and no connection),
 * `no_answer` (in time), `stopped` (the client was stopped), `cancelled`, `http`.
 */
export class HikyakuError extends Error {
  /** @param {string} code @param {string} message @param {object} [details] of the `error` frame */
  constructor(code, message, details = {}) {
    super(message);
    this.name = 'HikyakuError';
    this.code = code;
    this.retryable = Boolean(details.retryable);
    this.details = details;
  }

  static of(frame) {
    return new HikyakuError(frame.code ?? 'internal', frame.message ?? '', frame);
  }
}
