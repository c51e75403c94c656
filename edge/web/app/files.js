/** Files of chats: sent in parts that go on after a cut, and read with the user's token. */

import { HikyakuError } from '../hikyaku.js';

const KEPT = 60;
const PART_BYTES = 4 * 1024 * 1024;
const TRIES = 6;
const TRY_AFTER_MS = 1000;

export class Files {
  #urls = new Map();
  /** Descriptions of files that were sent from here. @type {Map<string, object>} */
  known = new Map();

  /** @param {import('../hikyaku.js').Client} client @param {URL} base */
  constructor(client, base) {
    this.client = client;
    this.base = base;
  }

  /**
   * Send a file to a chat, by the tus protocol.
   * @param {string} chatId @param {File} file @param {(part: number) => void} progress of 0 to 1
   * @param {AbortSignal} signal
   * @returns {Promise<object>} the file's description
   */
  async upload(chatId, file, progress, signal) {
    const metadata = `chat_id ${base64(chatId)},filename ${base64(file.name || 'file')}`;
    const made = { 'Upload-Length': file.size, 'Upload-Metadata': metadata };
    const created = await this.#tus('POST', new URL('v1/files/tus', this.base), made, { signal });
    const url = new URL(created.getResponseHeader('Location'), this.base);
    let sent = 0;
    for (let tries = 0; sent < file.size || !file.size; ) {
      try {
        const body = file.slice(sent, sent + PART_BYTES);
        const upload = ({ loaded }) => progress((sent + loaded) / (file.size || 1));
        const headers = { 'Upload-Offset': sent, 'Content-Type': 'application/offset+octet-stream' };
        const answer = await this.#tus('PATCH', url, headers, { body, upload, signal });
        sent = Number(answer.getResponseHeader('Upload-Offset'));
        tries = 0;
        if (!file.size) break;
      } catch (error) {
        if (!error.retryable || ++tries >= TRIES) throw error;
        await new Promise((resolve) => setTimeout(resolve, TRY_AFTER_MS * tries));
        sent = await this.#offset(url, sent, signal);
      }
    }
    const about = await this.client.http('GET', url);
    this.known.set(about.id, about);
    return about;
  }

  /** How much of an upload has arrived; as far as known when nobody answers. */
  async #offset(url, known, signal) {
    try {
      const answer = await this.#tus('HEAD', url, {}, { signal });
      return Number(answer.getResponseHeader('Upload-Offset'));
    } catch (error) {
      if (!error.retryable) throw error;
      return known;
    }
  }

  /** One request; only `XMLHttpRequest` tells how far it has come. */
  async #tus(method, url, headers, { body, upload, signal }) {
    const bearer = `Bearer ${await this.client.bearer()}`;
    return new Promise((resolve, reject) => {
      const request = new XMLHttpRequest();
      const stop = () => request.abort();
      request.open(method, url);
      request.responseType = 'json';
      const all = { Authorization: bearer, 'Tus-Resumable': '1.0.0', ...headers };
      for (const [name, value] of Object.entries(all)) request.setRequestHeader(name, value);
      if (upload) request.upload.onprogress = upload;
      request.onloadend = () => {
        signal.removeEventListener('abort', stop);
        if (request.status >= 200 && request.status < 300) resolve(request);
        else reject(refusal(request, signal.aborted));
      };
      signal.addEventListener('abort', stop);
      request.send(body);
    });
  }

  /** An address of this page for a thumbnail. @param {string} path @returns {Promise<string>} */
  url(path) {
    let url = this.#urls.get(path);
    if (url) {
      this.#urls.delete(path);
    } else {
      url = this.#fetched(path);
      url.catch(() => this.#urls.delete(path));
    }
    this.#urls.set(path, url);
    if (this.#urls.size > KEPT) {
      const [oldest, old] = this.#urls.entries().next().value;
      this.#urls.delete(oldest);
      old.then((each) => URL.revokeObjectURL(each), () => {});
    }
    return url;
  }

  async #fetched(path) {
    const headers = { Authorization: `Bearer ${await this.client.bearer()}` };
    const answer = await fetch(this.#inside(path), { headers });
    if (!answer.ok) throw new HikyakuError('http', `HTTP ${answer.status}`);
    return URL.createObjectURL(await answer.blob());
  }

  /** An address that is good for an hour without the token, for what the browser loads itself. */
  async link({ id }) {
    const { url } = await this.client.http('POST', `v1/files/${id}/link`);
    return this.#inside(url).href;
  }

  /** The server names paths from its root, which may be below another one here. */
  #inside(path) {
    return new URL(path.replace(/^\//, ''), this.base);
  }

  /** Save a file on the person's disk. */
  async save(file) {
    const link = document.createElement('a');
    link.href = await this.link(file);
    link.download = file.name;
    link.click();
  }
}

const base64 = (text) => btoa(String.fromCharCode(...new TextEncoder().encode(text)));

function refusal({ status, response }, aborted) {
  if (aborted) return new HikyakuError('cancelled', 'the upload was given up');
  if (!status) return new HikyakuError('offline', 'the upload was cut off', { retryable: true });
  // What was sent before the cut is still being written: ask again how much there is.
  const retryable = status === 409 || status === 423 || status >= 500;
  const code = { 404: 'no_files', 405: 'no_files', 413: 'too_large' }[status] ?? 'http';
  return HikyakuError.of({ code, message: `HTTP ${status}`, ...response, retryable });
}
