/** Which events are new, and from where to resume. No I/O: frames in, decisions out. */

const REMEMBERED = 4096;
const STALLS = 3;

function parse(cursor) {
  const at = cursor.lastIndexOf(':');
  return { epoch: cursor.slice(0, at), seq: Number(cursor.slice(at + 1)) };
}

export class Tracker {
  /** @type {{epoch: string, seq: number, since: number|null} | null} */
  #at = null;
  #epoch = '';
  #lost = false;
  #progress = false;
  #stalls = 0;
  #seen = new Set();

  /** @param {string|null} [cursor] of an earlier `Tracker` */
  constructor(cursor = null) {
    if (cursor) this.#at = { ...parse(cursor), since: null };
  }

  /**
   * The cursor for the next connection, and what to store. While a catch-up runs it is where that
   * began, for only its end says what was left out.
   * @returns {string|null}
   */
  get cursor() {
    return this.#at && `${this.#at.epoch}:${this.#at.since ?? this.#at.seq}`;
  }

  /** A connection begins. @returns {boolean} whether a `caught_up` will come */
  welcome(frame) {
    this.#epoch = frame.epoch;
    if (!this.#at) {
      this.#at = { ...parse(frame.cursor), since: null };
      return false;
    }
    if (this.#at.epoch !== frame.epoch) {
      // A log restored from a backup may go on from where we are.
      const begin = parse(frame.cursor);
      if (this.#at.since === null && begin.seq === this.#at.seq) this.#at.epoch = begin.epoch;
      else this.#lost = true;
    }
    if (this.#at.since === null) this.#at.since = this.#at.seq;
    this.#progress = false;
    return true;
  }

  /** The connection has ended. A catch-up that never gets further is given up after some tries. */
  ended() {
    if (this.#at?.since == null) return;
    this.#stalls = this.#progress ? 0 : this.#stalls + 1;
    if (this.#stalls < STALLS) return;
    this.#stalls = 0;
    this.#lost = true;
    this.#at.since = this.#at.seq;
  }

  /** Whether the event is new; it is remembered then. One without `seq` is not of the log. */
  admit(event) {
    if (event.seq === undefined) return true;
    if (this.#at && this.#at.epoch === this.#epoch) {
      if (event.seq <= this.#at.seq) return false;
      this.#at.seq = event.seq;
    }
    this.#progress = true;
    if (event.type !== 'chat' && event.type !== 'group_chat') return true;
    // The server may have stored a message twice that was sent again after a long time.
    return this.#first(`i${event.id}`) && this.#first(`c${event.client_id}\n${event.from}`);
  }

  #first(name) {
    if (this.#seen.has(name)) return false;
    this.#seen.add(name);
    if (this.#seen.size > REMEMBERED) this.#seen.delete(this.#seen.values().next().value);
    return true;
  }

  /** The catch-up ends. @returns {object} the frame, as the application gets it */
  caughtUp(frame) {
    const end = parse(frame.cursor);
    const before = this.#at?.epoch === end.epoch ? this.#at.seq : 0;
    this.#at = { epoch: end.epoch, seq: Math.max(end.seq, before), since: null };
    this.#epoch = end.epoch;
    const recovered = frame.recovered && !this.#lost;
    this.#lost = false;
    this.#stalls = 0;
    return { ...frame, recovered };
  }
}
