// Sheets of thumbnails, fetched and decoded ahead. Small ones are all kept, large ones as many as
// memory allows, so that a tile always has something to show.

const AT_ONCE = 4;
const AHEAD = 0, SHARPER = 1, BLANK = 2; // how urgent: a tile that shows nothing comes first

export class Sheets {
  constructor(about, arrived) {
    this.large = about.large;
    this.small = about.small;
    this.block = Math.sqrt(this.large.per);
    this.blocks = Math.sqrt(this.small.per / this.large.per);
    this.kept = { large: new Map(), small: new Map() };
    this.most = (navigator.deviceMemory ?? 8) < 4 ? 48 : 160;
    this.wanted = [[], [], []]; // by urgency; the latest wish of each is served first
    this.asked = new Set();
    this.running = 0;
    this.starting = false;
    this.arrived = arrived;
    this.closed = false;
  }
  // Small sheets, once the first screen has what it needs.
  prefetch() {
    for (let k = this.small.sheets - 1; k >= 0; k--) this.want("small", k, AHEAD);
  }
  want(size, number, urgency) {
    const name = `${size}/${number}`;
    if (this.kept[size].has(number)) return;
    if (this.asked.has(name)) {
      const before = this.wanted.findIndex((names) => names.includes(name));
      if (before < 0 || before > urgency) return; // under way, or as good as
      this.wanted[before].splice(this.wanted[before].indexOf(name), 1);
    }
    this.asked.add(name);
    this.wanted[urgency].push(name);
    this.start();
  }
  // Once everything that a screen lacks is known: the most urgent first.
  start() {
    if (this.starting) return;
    this.starting = true;
    queueMicrotask(() => {
      this.starting = false;
      for (let k = this.running; k < AT_ONCE; k++) this.next();
    });
  }
  async next() {
    if (this.closed || this.running >= AT_ONCE) return;
    const name = this.wanted.findLast((names) => names.length)?.pop();
    if (name === undefined) return;
    this.running += 1;
    try {
      const reply = await fetch(`/web/tiles/${name}.jpg`);
      if (!reply.ok) throw new Error(reply.statusText);
      const bitmap = await createImageBitmap(await reply.blob());
      const [size, number] = name.split("/");
      this.keep(size, Number(number), bitmap);
    } catch { /* it is asked for again when it is looked at again */ }
    this.asked.delete(name);
    this.running -= 1;
    this.next();
  }
  keep(size, number, bitmap) {
    if (this.closed) return bitmap.close();
    const kept = this.kept[size];
    kept.set(number, bitmap);
    if (size === "large" && kept.size > this.most) {
      const [oldest] = kept.keys();
      kept.get(oldest).close();
      kept.delete(oldest);
    }
    this.arrived(size, number);
  }
  // Where a figure's picture is: [bitmap, x, y, side, is it the large one]; null while there is none.
  find(figure) {
    const number = Math.floor(figure / this.large.per), place = figure % this.large.per;
    const column = place % this.block, row = Math.floor(place / this.block);
    const large = this.kept.large.get(number);
    if (large) {
      this.kept.large.delete(number); // now it is the latest
      this.kept.large.set(number, large);
      return [large, column * this.large.side, row * this.large.side, this.large.side, true];
    }
    this.want("large", number, SHARPER);
    const sheet = Math.floor(figure / this.small.per), small = this.kept.small.get(sheet);
    if (!small) { // few hold all figures; in a sorted wall every tile is of another large sheet
      this.want("small", sheet, BLANK);
      return null;
    }
    const block = number % (this.small.per / this.large.per), side = this.small.side;
    const x = ((block % this.blocks) * this.block + column) * side;
    const y = (Math.floor(block / this.blocks) * this.block + row) * side;
    return [small, x, y, side, false];
  }
  close() {
    this.closed = true;
    for (const kept of Object.values(this.kept)) for (const bitmap of kept.values()) bitmap.close();
  }
}
