/** Where messages are written: text, files, mentions, emoji; replies and edits. */

import { h, patch } from '../app/dom.js';
import { clean, short } from '../app/format.js';
import { t } from '../app/i18n.js';
import { icon, iconButton } from '../app/icons.js';
import { flat, mentioned } from '../app/markdown.js';
import { pickEmoji } from './emojipicker.js';
import { mentionable, suggest } from './suggest.js';
import { Tray } from './tray.js';

const MAX_HEIGHT = 220;
/** On a phone Enter begins a new line, as there is a button to send. */
const touch = matchMedia('(hover: none) and (pointer: coarse)');

export class Composer {
  #states = new Map();
  #suggestion = null;

  /**
   * @param {import('../app/app.js').App} app
   * @param {object} options
   * @param {boolean} [options.inThread]
   * @param {() => void} options.sent
   */
  constructor(app, { inThread = false, sent }) {
    Object.assign(this, { app, inThread, sent });
    this.element = document.createElement('form');
    this.element.className = 'composer';
    this.element.onsubmit = (event) => {
      event.preventDefault();
      this.submit();
    };
    this.above = document.createElement('div');
    this.text = document.createElement('textarea');
    Object.assign(this.text, { rows: 1, className: 'write', enterKeyHint: 'send', dir: 'auto' });
    this.text.setAttribute('aria-autocomplete', 'list');
    this.text.oninput = () => this.#typed();
    this.text.onkeydown = (event) => this.#key(event);
    this.text.onpaste = (event) => {
      if (event.clipboardData.files.length) {
        event.preventDefault();
        this.attach(event.clipboardData.files);
      }
    };
    this.text.onblur = () => this.#close();
    this.box = document.createElement('div');
    this.box.className = 'box';
    this.element.append(this.above, this.box);
    app.store.on(['settings', 'people', 'tray'], () => this.draw());
  }

  /** Write to this chat, or in this thread of it. */
  show(chat, thread = '') {
    const key = `${chat.id} ${thread}`;
    if (this.key === key) return;
    this.#close();
    this.key = key;
    this.chat = chat;
    this.thread = thread;
    if (!this.#states.has(key)) {
      const tray = new Tray(this.app, chat);
      this.#states.set(key, { draft: thread ? '' : chat.draft, reply: null, edit: null, tray });
    }
    this.text.value = this.state.draft;
    this.draw();
    this.fit();
  }

  get state() {
    return this.#states.get(this.key);
  }

  focus() {
    this.text.focus();
  }

  reply(message) {
    Object.assign(this.state, { reply: message, edit: null });
    this.draw();
    this.focus();
  }

  edit(message) {
    Object.assign(this.state, { edit: message, reply: null, before: this.text.value });
    this.#put(message.content);
  }

  /** @param {Iterable<File>} files */
  attach(files) {
    if (this.app.store.lacks.has('files')) this.app.toast(t('files.none'));
    else this.state.tray.add(files);
    this.focus();
  }

  /** Leave an edit or a reply. @returns {boolean} whether there was one */
  cancel() {
    const { reply, edit, before = '' } = this.state ?? {};
    if (!reply && !edit) return false;
    Object.assign(this.state, { reply: null, edit: null });
    this.#put(edit ? before : this.text.value);
    return true;
  }

  #put(value) {
    this.text.value = value;
    this.draw();
    this.fit();
    this.focus();
    this.text.setSelectionRange(value.length, value.length);
  }

  // --- views ---

  draw() {
    if (!this.chat) return;
    const { app, chat, state } = this;
    const name = clean(chat.name);
    const words = (to) => (this.inThread ? t('write.thread') : t('write', { name: to }));
    this.text.placeholder = words(short(name, touch.matches ? 14 : 40));
    this.text.setAttribute('aria-label', words(name));
    patch(this.above, [this.#context(), state.tray.view()]);
    const tools = { size: 20, tabindex: '0' };
    patch(this.box, [
      !app.store.lacks.has('files') && iconButton('attach', t('attach'), () => this.#choose(), { key: 'attach', ...tools }),
      h('div.grow', { key: 'text', mount: (element) => element.append(this.text) }),
      iconButton('smile', t('emoji'), (event) => pickEmoji(event.currentTarget, (char) => this.insert(char)), {
        key: 'emoji',
        ...tools,
        'aria-haspopup': 'true',
      }),
      h(
        'button.send',
        { key: 'send', type: 'submit', disabled: !this.#ready(), 'aria-label': t(state.edit ? 'save' : 'send'), title: t(state.edit ? 'save' : 'send') },
        icon(state.edit ? 'check' : 'send', 20),
      ),
    ]);
  }

  #context() {
    const { reply, edit } = this.state;
    const about = reply ?? edit;
    if (!about) return null;
    const title = edit ? t('editing') : t('replying', { name: clean(reply.from) });
    return h(
      'div.context',
      { key: 'context' },
      icon(edit ? 'edit' : 'quote', 18),
      h('span', null, h('b', null, title), h('span', null, flat(about.content) || t('preview.file'))),
      iconButton('close', t('cancel'), () => this.cancel(), { size: 16 }),
    );
  }

  #ready() {
    const { tray, edit } = this.state;
    if (edit) return Boolean(this.text.value.trim());
    return !tray.busy && Boolean(this.text.value.trim() || tray.ids.length);
  }

  /** As high as what is written. */
  fit() {
    if (!this.text.isConnected) return; // It has no height yet.
    this.text.style.height = 'auto';
    this.text.style.height = `${Math.min(this.text.scrollHeight, MAX_HEIGHT)}px`;
  }

  // --- typing ---

  #typed() {
    const { state, chat } = this;
    if (!state.edit) {
      state.draft = this.text.value;
      if (!this.inThread) {
        chat.draft = state.draft;
        this.app.cache.dirty.add(chat.id);
        this.app.client.touch();
      }
      if (state.draft.trim()) this.app.client.typing(chat.id);
    }
    this.fit();
    this.draw();
    this.#suggest();
  }

  #suggest() {
    this.#close();
    const { text } = this;
    if (text.selectionStart !== text.selectionEnd) return;
    this.#suggestion = suggest(this.app, this.chat, text, (from, to, put) => {
      text.setRangeText(put, from, to, 'end');
      this.#typed();
    });
  }

  #close() {
    this.#suggestion?.close();
    this.#suggestion = null;
  }

  #key(event) {
    if (event.isComposing || event.keyCode === 229) return; // An input method has the keys.
    const taken = this.#suggestion?.key(event);
    if (!this.#suggestion?.open) this.#suggestion = null;
    if (taken) return;
    if (event.key === 'Enter' && !event.shiftKey && !(touch.matches && !event.ctrlKey)) {
      event.preventDefault();
      this.submit();
    } else if (event.key === 'ArrowUp' && !event.ctrlKey && !this.text.value && !this.state.edit) {
      const last = this.#mine();
      if (!last) return;
      event.preventDefault();
      this.edit(last);
    } else if (event.key === 'Escape' && this.cancel()) {
      event.stopPropagation();
    }
  }

  /** The newest own message here that can be edited. */
  #mine() {
    const timeline = this.thread ? this.chat.threads.get(this.thread) : this.chat.timeline;
    const { me } = this.app.store;
    return timeline?.items.findLast(
      (item) => item.from === me && item.id && !item.deleted && !item.notice && (this.thread || !item.thread),
    );
  }

  insert(value) {
    this.text.focus();
    this.text.setRangeText(value, this.text.selectionStart, this.text.selectionEnd, 'end');
    this.#typed();
  }

  #choose() {
    const input = document.createElement('input');
    Object.assign(input, { type: 'file', multiple: true });
    input.onchange = () => this.attach(input.files);
    input.click();
  }

  // --- sending ---

  async submit() {
    const { app, chat, state, thread } = this;
    const content = this.text.value.trim();
    if (!this.#ready()) return;
    const most = app.client.session?.limits?.content_bytes ?? 16_384;
    if (new TextEncoder().encode(content).length > most) {
      app.toast(t('error.too_large'));
      return;
    }
    if (state.edit) {
      if (content !== state.edit.content) app.client.edit(chat.id, state.edit.id, content);
      this.cancel();
      return;
    }
    const fields = { content, ...this.#extras(content) };
    if (!(await app.send(chat, fields))) return;
    Object.assign(state, { draft: '', reply: null });
    state.tray.clear();
    this.#put('');
    this.sent(thread);
  }

  #extras(content) {
    const { chat, state, thread } = this;
    const found = {};
    const mentions = mentioned(content, mentionable(chat)).slice(0, 50);
    if (mentions.length) found.mentions = mentions;
    if (state.reply) found.reply_to = state.reply.id;
    if (thread) found.thread = thread;
    if (state.tray.ids.length) found.attachments = state.tray.ids;
    return found;
  }
}
