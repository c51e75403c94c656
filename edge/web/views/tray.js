/** Files that are about to go with a message: sent at once, shown with their progress. */

import { HikyakuError } from '../hikyaku.js';
import { h } from '../app/dom.js';
import { clean, size } from '../app/format.js';
import { t } from '../app/i18n.js';
import { icon, iconButton } from '../app/icons.js';

const MOST = 20;

const most = ({ client }) => client.session?.limits?.file_bytes ?? Infinity;

export class Tray {
  #files = [];

  constructor(app, chat) {
    Object.assign(this, { app, chat });
  }

  get busy() {
    return this.#files.some((each) => each.state === 'sending');
  }

  /** Ids of the files that are on the server. @returns {string[]} */
  get ids() {
    return this.#files.filter((each) => each.state === 'done').map((each) => each.about.id);
  }

  add(files) {
    for (const file of [...files].slice(0, MOST - this.#files.length)) {
      const each = { file, part: 0, state: 'sending', picture: '' };
      if (file.type.startsWith('image/')) each.picture = URL.createObjectURL(file);
      this.#files.push(each);
      this.#send(each);
    }
    this.#changed();
  }

  async #send(each) {
    const { app, chat } = this;
    Object.assign(each, { state: 'sending', part: 0, failed: '' });
    each.stop = new AbortController();
    const progress = (part) => {
      each.part = part;
      this.#changed();
    };
    try {
      if (each.file.size > most(app)) throw new HikyakuError('too_large', '');
      each.about = await app.files.upload(chat.id, each.file, progress, each.stop.signal);
      each.state = 'done';
    } catch (error) {
      if (!(error instanceof HikyakuError)) throw error;
      each.state = 'failed';
      each.failed = app.why(error);
      if (error.code === 'no_files') app.store.lacks.add('files');
    }
    this.#changed();
  }

  #remove(each) {
    each.stop?.abort();
    if (each.picture) URL.revokeObjectURL(each.picture);
    this.#files = this.#files.filter((other) => other !== each);
    this.#changed();
  }

  clear() {
    for (const each of this.#files) if (each.picture) URL.revokeObjectURL(each.picture);
    this.#files = [];
  }

  #changed() {
    this.app.store.changed('tray');
  }

  view() {
    if (!this.#files.length) return null;
    return h('div.tray', { key: 'tray' }, this.#files.map((each, at) => this.#item(each, at)));
  }

  #item(each, at) {
    const { file, part, state, failed, picture } = each;
    const name = clean(file.name);
    return h(
      'div',
      { key: `${at} ${file.name}`, class: `item ${state}`, title: failed || name },
      picture ? h('img', { src: picture, alt: '' }) : icon('file', 26),
      h(
        'span',
        null,
        h('b', null, name),
        h('small', { role: failed ? 'alert' : undefined }, failed || size(file.size)),
        state === 'sending' && h('progress', { max: 1, value: part, 'aria-label': t('uploading', { name }) }),
      ),
      state === 'failed' && h('button.link', { type: 'button', onclick: () => this.#send(each) }, t('again')),
      iconButton('close', t('remove', { name }), () => this.#remove(each), { size: 16 }),
    );
  }
}
