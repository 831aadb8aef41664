// A wall of tiles of which only the rows near the screen exist. A row is one canvas with its
// pictures, painted at once, and one link for each figure above it.

import { h } from "./dom.js";
import { COLOURS } from "./subtypes.js";
import { Sheets } from "./sheets.js";

const TILE = 80, MARK = 5, GAP = 4, EDGE = 10; // tiles are as wide as it takes to fill a row, TILE about
const AHEAD = 1.25; // screens above and below that are painted already

export class Wall {
  // marks(i): subtypes whose colours stand below a tile; title(i): what a tile is called; pale(i):
  // whether its picture is drawn pale.
  constructor(tiles, { marks, title, name, pale = () => false }) {
    this.marks = marks;
    this.pale = pale;
    this.title = title;
    this.figures = [];
    this.rows = new Map();
    this.spare = [];
    this.current = 0;
    this.columns = 1;
    this.tile = TILE;
    this.sheets = new Sheets(tiles, (size, number) => this.repaint(size, number));
    this.all = h("div", { class: "all", role: "none" });
    this.element = h("div", { class: "wall", role: "listbox", tabindex: 0, "aria-label": name,
      on: { scroll: () => this.soon(), keydown: (e) => this.key(e), focus: () => this.point(false) } }, this.all);
    this.watch = new ResizeObserver(() => this.measure());
    this.watch.observe(this.element);
    this.pending = 0;
    this.prefetched = false;
  }
  set(figures, keepPlace = false) {
    this.figures = figures;
    this.current = keepPlace ? Math.min(this.current, Math.max(figures.length - 1, 0)) : 0;
    if (!keepPlace) this.element.scrollTop = 0;
    this.element.hidden = figures.length === 0;
    this.clear();
    this.measure();
  }
  get pitch() { return this.tile + MARK + GAP; }
  measure() {
    const width = this.element.clientWidth - 2 * EDGE + GAP;
    if (width <= GAP) return;
    const columns = Math.max(1, Math.round(width / (TILE + GAP)));
    const tile = Math.floor(width / columns) - GAP;
    if (columns !== this.columns || tile !== this.tile) {
      const first = Math.floor(this.element.scrollTop / this.pitch) * this.columns;
      this.columns = columns;
      this.tile = tile;
      this.clear();
      this.stretch();
      this.element.scrollTop = Math.floor(first / columns) * this.pitch;
    }
    this.stretch();
    this.draw();
  }
  stretch() { this.all.style.height = `${Math.ceil(this.figures.length / this.columns) * this.pitch + 2 * EDGE}px`; }
  soon() {
    if (!this.pending) this.pending = requestAnimationFrame(() => { this.pending = 0; this.draw(); });
  }
  draw() {
    if (!this.element.isConnected || this.element.hidden) return;
    const height = this.element.clientHeight, top = this.element.scrollTop;
    const last = Math.ceil(this.figures.length / this.columns) - 1;
    const seen = [Math.floor((top - EDGE) / this.pitch), Math.floor((top + height - EDGE) / this.pitch)];
    const from = Math.max(0, Math.floor((top - AHEAD * height) / this.pitch));
    const to = Math.min(last, Math.ceil((top + (1 + AHEAD) * height) / this.pitch));
    for (const [number, row] of this.rows) if (number < from || number > to) this.drop(number, row);
    // Those that are seen ask for their sheets last, and so are served first.
    const order = [];
    for (let number = from; number <= to; number++) if (!this.rows.has(number)) order.push(number);
    order.sort((a, b) => this.distance(b, seen) - this.distance(a, seen));
    for (const number of order) this.make(number);
    if (!this.prefetched && height) {
      this.prefetched = true;
      this.sheets.prefetch();
    }
  }
  distance(number, [first, last]) { return number < first ? first - number : number > last ? number - last : 0; }
  make(number) {
    const row = this.spare.pop() ?? { element: h("div", { class: "tiles", role: "none" }, h("canvas", { "aria-hidden": "true" })), links: [] };
    row.canvas = row.element.firstChild;
    row.figures = this.figures.slice(number * this.columns, (number + 1) * this.columns);
    row.number = number;
    row.element.style.transform = `translate(${EDGE}px, ${EDGE + number * this.pitch}px)`;
    while (row.links.length < row.figures.length) {
      const link = h("a", { role: "option", tabindex: -1, "aria-selected": "false" });
      link.style.width = `${this.tile}px`;
      link.style.height = `${this.tile + MARK}px`;
      row.links.push(link);
      row.element.append(link);
    }
    row.links.forEach((link, k) => {
      link.hidden = k >= row.figures.length;
      if (link.hidden) return;
      const at = number * this.columns + k;
      link.style.left = `${k * (this.tile + GAP)}px`;
      link.href = `#/figure/${row.figures[k]}`;
      link.id = `tile-${at}`;
      link.title = this.title(row.figures[k]);
      link.setAttribute("aria-label", link.title);
      link.setAttribute("aria-posinset", at + 1);
      link.setAttribute("aria-setsize", this.figures.length);
      link.setAttribute("aria-selected", String(at === this.current));
      link.classList.toggle("current", at === this.current);
    });
    this.rows.set(number, row);
    this.paint(row);
    if (!row.element.isConnected) this.all.append(row.element);
  }
  drop(number, row) {
    this.rows.delete(number);
    row.element.remove();
    if (this.spare.length < 24) this.spare.push(row);
  }
  clear() { for (const [number, row] of this.rows) this.drop(number, row); }
  paint(row) {
    const tile = this.tile;
    const scale = Math.min(devicePixelRatio || 1, 2);
    const width = row.figures.length * (tile + GAP), height = tile + MARK;
    if (row.canvas.width !== Math.round(width * scale) || row.canvas.height !== Math.round(height * scale)) {
      row.canvas.width = Math.round(width * scale);
      row.canvas.height = Math.round(height * scale);
      row.canvas.style.width = `${width}px`;
      row.canvas.style.height = `${height}px`;
    }
    const pen = row.canvas.getContext("2d");
    pen.setTransform(scale, 0, 0, scale, 0, 0);
    pen.clearRect(0, 0, width, height);
    row.blank = 0;
    row.coarse = 0;
    row.figures.forEach((figure, k) => {
      const x = k * (tile + GAP), found = this.sheets.find(figure);
      if (found) {
        const [bitmap, sx, sy, side, large] = found;
        pen.globalAlpha = this.pale(figure) ? 0.4 : 1;
        pen.drawImage(bitmap, sx, sy, side, side, x, 0, tile, tile);
        pen.globalAlpha = 1;
        if (!large) row.coarse += 1;
      } else {
        pen.fillStyle = "rgb(128 128 128 / 18%)";
        pen.fillRect(x, 0, tile, tile);
        row.blank += 1;
      }
      const marks = this.marks(figure);
      marks.forEach((subtype, m) => {
        pen.fillStyle = subtype < 0 ? "rgb(128 128 128 / 30%)" : COLOURS[subtype];
        const part = tile / marks.length;
        pen.fillRect(x + m * part, tile + 1, part - (m + 1 < marks.length ? 1 : 0), MARK - 1);
      });
    });
    row.element.dataset.blank = row.blank;
  }
  repaint(size, number) {
    const per = this.sheets[size].per;
    for (const row of this.rows.values()) {
      const lacking = size === "large" ? row.blank + row.coarse : row.blank;
      if (lacking && row.figures.some((figure) => Math.floor(figure / per) === number)) this.paint(row);
    }
  }
  key(event) {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const page = Math.max(1, Math.floor(this.element.clientHeight / this.pitch)) * this.columns;
    const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -this.columns, ArrowDown: this.columns,
      PageUp: -page, PageDown: page, Home: -this.figures.length, End: this.figures.length }[event.key];
    if (event.key === "Enter") location.hash = `#/figure/${this.figures[this.current]}`;
    else if (step === undefined) return;
    else {
      this.current = Math.min(Math.max(this.current + step, 0), this.figures.length - 1);
      this.point(true);
    }
    event.preventDefault();
  }
  // Show which tile the keyboard is at.
  point(scroll) {
    if (!this.figures.length) return;
    const top = Math.floor(this.current / this.columns) * this.pitch, height = this.element.clientHeight;
    const at = this.element.scrollTop;
    if (scroll && top < at) this.element.scrollTop = top;
    if (scroll && top + this.pitch + EDGE > at + height) this.element.scrollTop = top + this.pitch + 2 * EDGE - height;
    this.draw();
    for (const row of this.rows.values())
      row.links.forEach((link, k) => {
        const is = row.number * this.columns + k === this.current && !link.hidden;
        link.classList.toggle("current", is);
        link.setAttribute("aria-selected", String(is));
      });
    this.element.setAttribute("aria-activedescendant", `tile-${this.current}`);
  }
  close() {
    this.watch.disconnect();
    this.sheets.close();
    this.clear();
  }
}
