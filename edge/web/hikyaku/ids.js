/** Chat ids: `dm.<a>.<b>` and `group.<id>`, with bytes outside `[A-Za-z0-9_-]` written as `=XX`. */

const encoder = new TextEncoder();
const decoder = new TextDecoder('utf-8', { fatal: true });

/** @param {string} id a user or group id @returns {string} */
export function encodeId(id) {
  let token = '';
  for (const byte of encoder.encode(id)) {
    const char = String.fromCharCode(byte);
    token += /[A-Za-z0-9_-]/.test(char)
      ? char
      : `=${byte.toString(16).toUpperCase().padStart(2, '0')}`;
  }
  return token;
}

/** @param {string} token @returns {string} */
export function decodeId(token) {
  const bytes = [];
  for (let at = 0; at < token.length; at++) {
    if (token[at] === '=') {
      bytes.push(parseInt(token.slice(at + 1, at + 3), 16));
      at += 2;
    } else {
      bytes.push(token.charCodeAt(at));
    }
  }
  return decoder.decode(Uint8Array.from(bytes));
}

/** The chat of two users. @param {string} user @param {string} other */
export function dmChatId(user, other) {
  return `dm.${[encodeId(user), encodeId(other)].sort().join('.')}`;
}

/** @param {string} groupId */
export function groupChatId(groupId) {
  return `group.${encodeId(groupId)}`;
}

/**
 * Whom a message to this chat is for: the fields of a `chat` or `group_chat` frame.
 * @param {string} chatId
 * @param {string} me the own user id
 * @returns {{to: string} | {group_id: string}}
 */
export function addressee(chatId, me) {
  const [kind, first, second] = chatId.split('.');
  if (kind === 'group') return { group_id: decodeId(first) };
  return { to: decodeId(first === encodeId(me) ? second : first) };
}
