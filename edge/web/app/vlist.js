/**
 * A list of any length of which only the part on the screen is there. Heights are measured as rows
 * appear, and what a person looks at stays where it is when rows above change or are added.
 */

import { h, patch, soon } from './dom.js';

const AHEAD_PX = 600;
const NEAR_PX = 1200;
const STICKY_PX = 48;
const MEASURED = 20_000;

export class VirtualList {
  #rows = [];
  #index = new Map();
  #heights = new Map();
  #offsets = new Float64Array(1);
  #from = 0;
  #to = 0;
  #stick = true;
  #pending = null;
  #seen;
  #width = 0;

  /**
   * @param {object} options
   * @param {HTMLElement} options.scroller with a fixed height
   * @param {(row: object) => object} options.render a row's description, see `dom.js`
   * @param {(row: object) => number} options.estimate its height before it was seen
   * @param {(near: {start: boolean, end: boolean, atEnd: boolean}) => void} options.moved
   * @param {() => string} options.label in the language of the moment
   * @param {boolean} [options.hanging] few rows hang from the top, and do not stand at the bottom
   */
  constructor({ scroller, render, estimate, moved, label, role = 'list', hanging = false }) {
    Object.assign(this, { scroller, render, estimate, moved, label, hanging });
    this.body = document.createElement('div');
    this.body.className = 'vlist';
    this.body.setAttribute('role', role);
    this.window = document.createElement('div');
    this.window.className = 'vlist-window';
    this.window.setAttribute('role', 'presentation');
    this.body.append(this.window);
    scroller.append(this.body);
    scroller.addEventListener('scroll', () => this.#scrolled(), { passive: true });
    this.#seen = new ResizeObserver((entries) => this.#resized(entries));
    this.#seen.observe(scroller);
  }

  get rows() {
    return this.#rows;
  }

  /** Show these rows; each has a `key`. */
  set(rows) {
    const anchor = this.#anchor();
    this.body.setAttribute('aria-label', this.label());
    if (this.#heights.size > MEASURED) this.#heights.clear();
    this.#rows = rows;
    this.#index = new Map(rows.map((row, at) => [row.key, at]));
    this.#layout();
    this.#show(anchor);
  }

  /** Draw again what is on the screen. */
  redraw() {
    this.#show(this.#anchor());
  }

  /** Rows are about to grow: do not follow the end. */
  hold() {
    this.#stick = false;
  }

  toEnd() {
    this.#stick = true;
    this.#pending = null;
    this.#show(null);
  }

  /** Bring a row into sight. @returns {boolean} whether it is in the list */
  to(key, where = 'center') {
    if (!this.#index.has(key)) return false;
    this.#stick = false;
    this.#pending = { key, where };
    this.#show(null);
    this.#pending = null;
    this.#stick = this.#left < STICKY_PX;
    this.#tell();
    return true;
  }

  /** The element of a row, if it is on the screen. @returns {HTMLElement|undefined} */
  element(key) {
    return [...this.window.children].find((each) => each.dataset.key === key);
  }

  #layout() {
    const { length } = this.#rows;
    if (this.#offsets.length < length + 1) this.#offsets = new Float64Array(length * 2 + 1);
    for (let at = 0; at < length; at++) {
      const row = this.#rows[at];
      const height = this.#heights.get(row.key) ?? this.estimate(row);
      this.#offsets[at + 1] = this.#offsets[at] + height;
    }
  }

  get #total() {
    return this.#offsets[this.#rows.length];
  }

  /** Few rows stand at the bottom, unless they hang. */
  get #lead() {
    return this.hanging ? 0 : Math.max(0, this.scroller.clientHeight - this.#total);
  }

  /** The row that contains this offset. */
  #at(offset) {
    let low = 0;
    let high = this.#rows.length - 1;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#offsets[middle + 1] <= offset) low = middle + 1;
      else high = middle;
    }
    return Math.max(low, 0);
  }

  /** The first row in sight and where it stands, to be found there again. */
  #anchor() {
    if (this.#stick || !this.#rows.length) return null;
    const top = this.scroller.scrollTop - this.#lead;
    const at = this.#at(top);
    return { key: this.#rows[at].key, delta: this.#offsets[at] - top };
  }

  #target(anchor) {
    const { clientHeight } = this.scroller;
    if (this.#pending) {
      const { key, where } = this.#pending;
      const at = this.#index.get(key);
      const height = this.#offsets[at + 1] - this.#offsets[at];
      const room = { start: 8, center: (clientHeight - height) / 2, third: clientHeight / 4 };
      return this.#offsets[at] - (room[where] ?? 0) + this.#lead;
    }
    if (this.#stick) return this.#total - clientHeight;
    const at = anchor && this.#index.get(anchor.key);
    return at === null || at === undefined ? null : this.#offsets[at] - anchor.delta + this.#lead;
  }

  /** Draw, measure, and draw again while the measures change what is to be seen. */
  #show(anchor) {
    if (!this.scroller.clientHeight) return;
    for (let tries = 0; tries < 4; tries++) {
      this.body.style.height = `${this.#total + this.#lead}px`;
      const target = this.#target(anchor);
      if (target !== null && Math.abs(target - this.scroller.scrollTop) > 0.5) {
        this.scroller.scrollTop = target;
      }
      this.#draw();
      if (!this.#measure()) break;
    }
    this.#tell();
  }

  #draw() {
    const top = this.scroller.scrollTop - this.#lead;
    const { length } = this.#rows;
    this.#from = length ? this.#at(top - AHEAD_PX) : 0;
    this.#to = length ? this.#at(top + this.scroller.clientHeight + AHEAD_PX) + 1 : 0;
    const mount = (element) => this.#seen.observe(element);
    const unmount = (element) => this.#seen.unobserve(element);
    const shown = this.#rows.slice(this.#from, this.#to).map((row, at) => {
      const place = { 'aria-setsize': length, 'aria-posinset': this.#from + at + 1 };
      const view = this.render(row);
      const props = { ...view.props, ...place, key: row.key, 'data-key': row.key, mount, unmount };
      return h(view.name, { role: 'listitem', ...props }, view.children);
    });
    patch(this.window, shown);
    // Not `transform`, which what is sticky in it would not know of.
    this.window.style.top = `${this.#offsets[this.#from] + this.#lead}px`;
  }

  /** @returns {boolean} whether a height is not what it was taken for */
  #measure() {
    let changed = false;
    for (const element of this.window.children) {
      const { key } = element.dataset;
      const height = element.getBoundingClientRect().height;
      const at = this.#index.get(key);
      if (Math.abs(height - (this.#offsets[at + 1] - this.#offsets[at])) > 0.5) changed = true;
      this.#heights.set(key, height);
    }
    if (changed) this.#layout();
    return changed;
  }

  #resized(entries) {
    const { clientWidth } = this.scroller;
    const wider = clientWidth !== this.#width;
    this.#width = clientWidth;
    if (wider) this.#heights.clear();
    const differs = ({ target, borderBoxSize: [{ blockSize }] }) =>
      target === this.scroller || Math.abs(blockSize - this.#heights.get(target.dataset.key)) > 0.5;
    if (!wider && !entries.some(differs)) return;
    // In the next frame: what changes sizes while sizes are being told makes browsers complain.
    soon(this.#redraw);
  }

  #redraw = () => this.redraw();

  #scrolled() {
    const { scrollTop, clientHeight } = this.scroller;
    this.#stick = this.#left < STICKY_PX;
    const top = scrollTop - this.#lead;
    const inside =
      this.#offsets[this.#from] <= Math.max(top - AHEAD_PX / 3, 0) &&
      this.#offsets[this.#to] >= Math.min(top + clientHeight + AHEAD_PX / 3, this.#total);
    if (!inside) this.#show(this.#anchor());
    else this.#tell();
  }

  /** How much there is below what is on the screen. */
  get #left() {
    return this.#total + this.#lead - this.scroller.scrollTop - this.scroller.clientHeight;
  }

  #tell() {
    const start = this.scroller.scrollTop < NEAR_PX;
    this.moved({ start, end: this.#left < NEAR_PX, atEnd: this.#stick });
  }
}
