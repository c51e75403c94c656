/** Says that the person is away when nothing was touched for a while, and back when it is. */

const AWAY_AFTER_MS = 10 * 60_000;
const LOOK_EVERY_MS = 30_000;

export class Idle {
  #touched = Date.now();
  #away = false;

  /** @param {import('./app.js').App} app */
  constructor(app) {
    const touch = () => {
      this.#touched = Date.now();
      if (this.#away) this.#set(app, false);
    };
    for (const type of ['pointerdown', 'keydown', 'wheel', 'focus']) {
      window.addEventListener(type, touch, { passive: true, capture: true });
    }
    setInterval(() => {
      if (!this.#away && Date.now() - this.#touched > AWAY_AFTER_MS) this.#set(app, true);
    }, LOOK_EVERY_MS);
  }

  #set(app, away) {
    if (!['online', 'away'].includes(app.store.self.status)) return;
    this.#away = away;
    app.client.request('presence_set', { status: away ? 'away' : 'online' }).catch(() => {});
  }
}
