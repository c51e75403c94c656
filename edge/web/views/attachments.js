/** Files of a message: images as thumbnails, others as cards. */

import { HikyakuError } from '../hikyaku.js';
import { h } from '../app/dom.js';
import { clean, size } from '../app/format.js';
import { t } from '../app/i18n.js';
import { icon } from '../app/icons.js';
import { dialog } from './parts.js';

const WIDE = 360;
const HIGH = 280;
/** Of the box of a picture that is very thin or flat. */
const LEAST = 72;
const AGAIN_MS = 3_000;
const LATEST_MS = 60_000;
const SHOWN = /^image\/(png|jpeg|gif|webp|avif)$/;

/** @param {import('../app/app.js').App} app */
export function attachments(app, chat, item) {
  const ids = item.attachments ?? [];
  if (!ids.length) return null;
  const known = new Map((item.files ?? []).map((file) => [file.id, file]));
  const files = ids.map((id) => known.get(id) ?? app.files.known.get(id) ?? { id, name: t('file'), size: 0 });
  return h(
    'div.files',
    null,
    files.map((file) => (SHOWN.test(file.content_type ?? '') ? image(app, file) : card(app, file))),
  );
}

function card(app, file) {
  return h(
    'button.file',
    { key: file.id, type: 'button', onclick: () => app.attempt(() => app.files.save(file)) },
    icon('file', 26),
    h('span', null, h('b', null, clean(file.name)), file.size > 0 && h('small', null, size(file.size))),
    icon('download', 18),
  );
}

/** Its room is kept while it is fetched, so that nothing moves. */
function image(app, file) {
  const { width = WIDE, height = HIGH } = file;
  const scale = Math.min(1, WIDE / width, HIGH / height);
  const [wide, high] = [width, height].map((side) => Math.max(LEAST, Math.round(side * scale)));
  const label = t('image.open', { name: clean(file.name) });
  return h(
    'button.image',
    {
      key: file.id,
      type: 'button',
      'aria-label': label,
      style: { width: `${wide}px`, 'aspect-ratio': `${wide} / ${high}` },
      onclick: () => lightbox(app, file),
    },
    picture(app, file.id, '', () => app.files.url(file.thumbnail ?? `v1/files/${file.id}`)),
  );
}

/**
 * An image whose address has to be asked for; without a connection, when there is one again, and of
 * a file that is not here yet, since it comes from another site, after a while.
 */
function picture(app, key, alt, address) {
  const load = async (element, tries = 0) => {
    try {
      element.src = await address();
    } catch (error) {
      if (!(error instanceof HikyakuError || error instanceof TypeError)) throw error;
      if (error.code === 'unavailable') {
        setTimeout(
          () => element.isConnected && load(element, tries + 1),
          Math.min(LATEST_MS, AGAIN_MS * 2 ** tries),
        );
        return;
      }
      const end = app.client.on('state', ({ phase }) => {
        if (phase !== 'online') return;
        end();
        if (element.isConnected) load(element);
      });
    }
  };
  return h('img', { key, alt, mount: load });
}

function lightbox(app, file) {
  dialog({
    title: clean(file.name),
    className: 'lightbox',
    view: () => [
      h('div.stage', { key: 'stage' }, picture(app, file.id, clean(file.name), () => app.files.link(file))),
      h(
        'footer',
        { key: 'foot' },
        h(
          'button.button',
          { type: 'button', autofocus: true, onclick: () => app.attempt(() => app.files.save(file)) },
          icon('download', 18),
          t('download'),
        ),
      ),
    ],
  });
}
