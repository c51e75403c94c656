/**
 * Views are functions of the state that return descriptions of elements; `patch` makes the page so.
 *
 * Text is always text: there is no way here to write HTML. A `key` keeps an element over moves;
 * `mount` and `unmount` are called with it; `node` puts in an element that someone else looks after.
 */

const SVG = 'http://www.w3.org/2000/svg';
const made = new WeakMap();

/**
 * @param {string} tag with classes, as `div.row`
 * @param {object|null} [props]
 * @param {...any} children descriptions, texts, arrays of them; null and false are left out
 */
export function h(tag, props, ...children) {
  const [name, ...classes] = tag.split('.');
  const given = props ?? {};
  if (classes.length) given.class = [classes.join(' '), given.class].filter(Boolean).join(' ');
  return { name, props: given, key: given.key, children: children.flat(4).filter(present) };
}

/** An element that is already there. */
export const keep = (node) => ({ node, key: node, props: {}, children: [] });

const present = (child) => child !== null && child !== undefined && child !== false && child !== '';

let depth = 0;
let fresh = [];

/** Make the children of `parent` those described. */
export function patch(parent, children, inSvg = false) {
  depth++;
  arrange(parent, children, inSvg);
  if (--depth) return;
  // Elements are told of only when all of them are on the page, where they can have the focus.
  const now = fresh;
  fresh = [];
  for (const { props, element } of now) props.mount?.(element);
}

function arrange(parent, children, inSvg) {
  const list = [children].flat(4).filter(present);
  const old = made.get(parent) ?? [];
  const keyed = new Map();
  const loose = [];
  for (const each of old) {
    if (each.key === undefined) loose.push(each);
    else keyed.set(each.key, each);
  }
  const used = new Set();
  const next = list.map((child) => {
    const view = typeof child === 'object' ? child : { text: String(child) };
    const before = view.key === undefined ? loose.shift() : keyed.get(view.key);
    const reused = before && before.name === view.name && ('text' in before) === ('text' in view);
    if (reused && !used.has(before)) {
      used.add(before);
      update(before, view, inSvg);
      return before;
    }
    return create(view, inSvg);
  });
  for (const each of old) if (!used.has(each)) remove(each);
  let at = parent.firstChild;
  for (const each of next) {
    if (each.element === at) at = at.nextSibling;
    else parent.insertBefore(each.element, at);
  }
  made.set(parent, next);
}

function create(view, inSvg) {
  if ('text' in view) return { ...view, element: document.createTextNode(view.text) };
  if (view.node) return { ...view, element: view.node };
  const svg = inSvg || view.name === 'svg';
  const element = svg ? document.createElementNS(SVG, view.name) : document.createElement(view.name);
  const self = { name: view.name, key: view.key, element, props: {} };
  update(self, view, svg);
  if (view.props.mount) fresh.push(self);
  return self;
}

function update(self, view, inSvg) {
  if ('text' in view) {
    if (self.text !== view.text) self.element.data = self.text = view.text;
    return;
  }
  if (view.node) return;
  const { element, props } = self;
  for (const name in props) if (!(name in view.props)) assign(element, name, undefined, props[name]);
  for (const name in view.props) assign(element, name, view.props[name], props[name]);
  self.props = view.props;
  patch(element, view.children, inSvg || view.name === 'svg');
}

const PROPERTIES = new Set(['value', 'checked', 'disabled', 'hidden', 'open', 'indeterminate']);

function assign(element, name, value, before) {
  if (name === 'key' || name === 'mount' || name === 'unmount') return;
  // What a handler returns is not passed on: `false` would prevent what the browser does.
  if (name.startsWith('on')) element[name] = value ? (event) => void value(event) : null;
  else if (name === 'style') {
    for (const part in before ?? {}) if (!value || !(part in value)) element.style.removeProperty(part);
    for (const part in value ?? {}) element.style.setProperty(part, value[part]);
  } else if (PROPERTIES.has(name)) {
    if (value !== before) element[name] = value ?? '';
  } else if (value !== before) {
    if (value === undefined || value === null || value === false) element.removeAttribute(name);
    else element.setAttribute(name, value === true ? '' : String(value));
  }
}

function remove(self) {
  forget(self);
  self.element.remove();
}

function forget(self) {
  self.props?.unmount?.(self.element);
  if ('text' in self || self.node) return;
  for (const each of made.get(self.element) ?? []) forget(each);
}

const jobs = new Set();
let planned = false;

/** Run `job` with the next frame of the screen, once; soon, if the page is not seen. */
export function soon(job) {
  jobs.add(job);
  if (planned) return;
  planned = true;
  if (document.hidden) setTimeout(flush, 100);
  else requestAnimationFrame(flush);
}

export function flush() {
  planned = false;
  const now = [...jobs];
  jobs.clear();
  for (const job of now) job();
}

document.addEventListener('visibilitychange', () => planned && flush());
