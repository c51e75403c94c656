/** Places in the client as addresses: `#/<chat>`, `#/<chat>/thread/<id>`, `#/<chat>/details`. */

/** @typedef {{chat?: string, panel?: string, thread?: string}} Place */

/** @param {Place} place */
export function address({ chat = '', thread = '', panel = '' }) {
  if (!chat) return '#/';
  if (thread) return `#/${chat}/thread/${thread}`;
  return panel ? `#/${chat}/${panel}` : `#/${chat}`;
}

/** @param {string} hash @returns {Required<Place>} */
export function place(hash) {
  const [chat = '', panel = '', thread = ''] = hash.slice(2).split('/');
  return { chat, panel, thread };
}
