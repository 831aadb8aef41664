// A slide to zoom into, with its figures, their density and the hot-spot above it.

import { ask, image } from "./api.js";
import { choice, h, named, problemList } from "./dom.js";
import { COLOURS, NAMES, atypical } from "./subtypes.js";

const MOST_LISTED = 400;

function library() {
  if (window.OpenSeadragon) return Promise.resolve();
  return new Promise((done, failed) => {
    const script = h("script", { src: "/static/vendor/openseadragon.min.js", on: { load: done, error: () => failed({ problems: ["The viewer could not be loaded."] }) } });
    document.head.append(script);
  });
}

export async function show(root, context) {
  const [slide, table] = await Promise.all([ask("/web/slide"), context.about.n ? context.table() : null, library()]);
  const answers = table?.answers;
  const step = (factor) => () => { viewer.viewport.zoomBy(factor); viewer.viewport.applyConstraints(); };
  const buttons = h("div", { class: "zoom" },
    h("button", { type: "button", "aria-label": "Zoom in", on: { click: step(1.6) } }, "+"),
    h("button", { type: "button", "aria-label": "Zoom out", on: { click: step(1 / 1.6) } }, "−"),
    h("button", { type: "button", "aria-label": "Whole slide", on: { click: () => viewer.viewport.goHome() } }, "⤢"));
  const ruler = h("span", { class: "ruler", "aria-hidden": "true" });
  const stage = h("div", {}), over = h("canvas", { class: "over", "aria-hidden": "true" });
  const state = { figures: "all", density: 0.45, hotspot: true, chosen: -1 };
  let density = null;
  const legend = h("p", { class: "legend" });
  const found = h("ul", { class: "found", "aria-label": "Figures, the most atypical first" });
  const told = h("div", {});
  const panel = h("aside", { "aria-label": "Findings" }, h("h1", {}, named(slide.name)),
    h("p", { class: "soft" }, `${slide.width.toLocaleString("en")} × ${slide.height.toLocaleString("en")} px, ${slide.mpp} µm per px`), controls(), told, found);
  root.replaceChildren(h("div", { class: "slide" }, h("section", { class: "viewer", "aria-label": "Slide" }, stage, over, ruler, buttons), panel));

  const viewer = window.OpenSeadragon({
    element: stage, showNavigationControl: false, drawer: "canvas", animationTime: matchMedia("(prefers-reduced-motion: reduce)").matches ? 0 : 0.6,
    maxZoomPixelRatio: 6, visibilityRatio: 0.4, gestureSettingsMouse: { clickToZoom: false, dblClickToZoom: true },
    tileSources: { width: slide.width, height: slide.height, tileSize: slide.tile, minLevel: Math.min(8, slide.max_level), maxLevel: slide.max_level,
      getTileUrl: (level, x, y) => `/web/slide/tiles/${level}/${x}_${y}.jpg` } });
  viewer.canvas.setAttribute("aria-label", "Slide: drag or use the arrow keys to move, + and − to zoom");
  viewer.canvas.setAttribute("role", "application");
  viewer.addHandler("update-viewport", draw);
  viewer.addHandler("tile-load-failed", ({ message }) => told.replaceChildren(problemList([`A part of the slide cannot be read (${message}).`])));
  viewer.addHandler("canvas-click", (event) => {
    if (!event.quick || !slide.places.length) return;
    const at = viewer.viewport.viewportToImageCoordinates(viewer.viewport.pointFromPixel(event.position));
    const reach = 14 / scale();
    let best = -1, least = reach;
    slide.places.forEach(([x, y], i) => {
      const far = Math.hypot(x - at.x, y - at.y);
      if (shown(i) && far < least) [best, least] = [i, far];
    });
    if (best >= 0) location.hash = `#/figure/${best}`;
  });
  const again = new ResizeObserver(() => draw());
  again.observe(stage);
  if (slide.places.length) ask("/web/slide/density").then((grid) => {
    density = paintGrid(grid);
    legend.replaceChildren(h("span", { class: "ramp", "aria-hidden": "true" }), h("small", {}, `0 to ${grid.most.toFixed(grid.most < 10 ? 1 : 0)} figures per mm²`));
    draw();
  }).catch(() => {});
  list();

  function scale() { return viewer.viewport.imageToViewportZoom(1) ? viewer.viewport.viewportToImageZoom(viewer.viewport.getZoom(true)) : 1; }
  function shown(i) {
    if (!answers) return true;
    return state.figures === "all" || answers.called[i] === { atypical: 1, normal: 0, apart: -1 }[state.figures];
  }
  function controls() {
    if (!slide.places.length) return h("p", {}, "No results: start with --results FILE.csv, which atypia slide writes, to see its figures.");
    const { hotspot } = slide;
    const apart = answers ? slide.places.filter((_, i) => answers.why(i)).length : 0;
    return h("div", {}, choice("Figures", [["all", `All ${slide.places.length}`], ["atypical", "Called atypical"], ["normal", "Called normal"],
      ...(apart ? [["apart", `Not answered: ${apart}`]] : [])], "all",
      (value) => { state.figures = value; list(); draw(); }),
      h("label", {}, h("span", {}, "Density map"), range()), legend,
      hotspot ? h("label", { class: "check" }, toggle(), h("span", {}, `Hot-spot of ${hotspot.area_mm2} mm²: ${hotspot.figures} figures, ${hotspot.atypical} atypical${hotspot.left_out ? `; ${hotspot.left_out} left out` : ""}`)) : null,
      apart ? h("p", { class: "soft" }, `${apart} candidates without a call, drawn as crosses, count neither in the density nor in the hot-spot.`) : null);
  }
  function range() {
    const input = h("input", { type: "range", min: 0, max: 0.9, step: 0.05, value: state.density, on: { input: () => { state.density = Number(input.value); draw(); } } });
    return input;
  }
  function toggle() {
    const input = h("input", { type: "checkbox", checked: true, on: { change: () => { state.hotspot = input.checked; draw(); } } });
    return input;
  }
  function list() {
    const numbers = slide.places.map((_, i) => i).filter(shown);
    if (answers) numbers.sort((i, j) => (answers.predicted[i] < 0) - (answers.predicted[j] < 0) || answers.pAtypical[j] - answers.pAtypical[i]);
    found.replaceChildren(...numbers.slice(0, MOST_LISTED).map((i) => h("li", { "data-subtype": answers?.predicted[i] },
      h("button", { type: "button", title: table.ids[i], "aria-current": i === state.chosen ? "true" : null, on: { click: () => choose(i) } }, h("img", { src: image(i), alt: "", loading: "lazy" }),
        h("span", { class: "name" }, h("span", { class: "swatch" }), answers ? NAMES[answers.predicted[i]] ?? "Not answered" : "", h("br"),
          h("small", {}, answers ? answers.why(i) || `${(answers.pAtypical[i] / 100).toFixed(0)} % atypical` : ""))))),
      ...(numbers.length > MOST_LISTED ? [h("li", { class: "soft" }, `… and ${numbers.length - MOST_LISTED} more; the explorer shows all.`)] : []));
  }
  // The first press goes to the place, the second opens the figure.
  function choose(i) {
    if (state.chosen === i) { location.hash = `#/figure/${i}`; return; }
    state.chosen = i;
    const [x, y] = slide.places[i], side = 120 / slide.mpp;
    viewer.viewport.fitBounds(viewer.viewport.imageToViewportRectangle(x - side / 2, y - side / 2, side, side));
    for (const button of found.querySelectorAll("button")) button.removeAttribute("aria-current");
    const button = document.activeElement.closest(".found button");
    button?.setAttribute("aria-current", "true");
    told.replaceChildren(h("p", { class: "soft", role: "status" }, "Press again to open the figure."));
  }
  function draw() {
    const width = stage.clientWidth, height = stage.clientHeight, ratio = Math.min(devicePixelRatio || 1, 2);
    if (over.width !== Math.round(width * ratio) || over.height !== Math.round(height * ratio)) {
      over.width = Math.round(width * ratio);
      over.height = Math.round(height * ratio);
    }
    const pen = over.getContext("2d");
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, width, height);
    if (!viewer.world.getItemCount()) return;
    const point = (x, y) => viewer.viewport.pixelFromPoint(viewer.viewport.imageToViewportCoordinates(x, y), true);
    const corner = point(0, 0), zoom = (point(1000, 0).x - corner.x) / 1000;
    measure(zoom);
    if (density && state.density > 0) {
      pen.globalAlpha = state.density;
      pen.imageSmoothingEnabled = true;
      pen.drawImage(density.canvas, corner.x, corner.y, density.width * zoom, density.height * zoom);
      pen.globalAlpha = 1;
    }
    if (slide.hotspot && state.hotspot) {
      pen.beginPath();
      slide.hotspot.outline.forEach(([x, y], i) => pen[i ? "lineTo" : "moveTo"](corner.x + x * zoom, corner.y + y * zoom));
      pen.lineWidth = 4;
      pen.strokeStyle = "#ffffffcc";
      pen.stroke();
      pen.lineWidth = 2;
      pen.strokeStyle = "#1c2430";
      pen.setLineDash([8, 5]);
      pen.stroke();
      pen.setLineDash([]);
    }
    slide.places.forEach(([px, py], i) => {
      if (!shown(i)) return;
      const x = corner.x + px * zoom, y = corner.y + py * zoom;
      if (x < -20 || y < -20 || x > width + 20 || y > height + 20) return;
      const subtype = answers ? answers.predicted[i] : -1;
      if (answers?.why(i)) return cross(pen, x, y, i === state.chosen);
      const radius = Math.max(atypical(subtype) ? 6 : 4.5, zoom > 0.3 ? (10 / slide.mpp) * zoom : 0);
      pen.beginPath();
      pen.arc(x, y, radius, 0, 2 * Math.PI);
      if (radius < 9) {
        pen.fillStyle = COLOURS[subtype] ?? "#888";
        pen.fill();
        pen.lineWidth = i === state.chosen ? 3 : 1.2;
        pen.strokeStyle = i === state.chosen ? "#000" : "#fff";
      } else {
        pen.lineWidth = i === state.chosen ? 5 : 3;
        pen.strokeStyle = COLOURS[subtype] ?? "#888";
      }
      pen.stroke();
    });
  }
  function cross(pen, x, y, chosen) {
    pen.beginPath();
    for (const side of [-1, 1]) { pen.moveTo(x - 4, y - 4 * side); pen.lineTo(x + 4, y + 4 * side); }
    for (const [width, colour] of [[4, "#ffffffcc"], [chosen ? 3 : 1.6, chosen ? "#000" : "#666"]]) {
      pen.lineWidth = width;
      pen.strokeStyle = colour;
      pen.stroke();
    }
  }
  // A length that people know, about 120 px wide.
  function measure(zoom) {
    const least = (90 * slide.mpp) / zoom; // µm
    const base = 10 ** Math.floor(Math.log10(least));
    const um = [1, 2, 5, 10].map((k) => k * base).find((length) => length >= least);
    ruler.style.width = `${(um / slide.mpp) * zoom}px`;
    ruler.textContent = um >= 1000 ? `${um / 1000} mm` : `${um} µm`;
  }
  return () => { again.disconnect(); viewer.destroy(); };
}

function paintGrid(grid) {
  const canvas = h("canvas", { width: grid.columns, height: grid.rows });
  const pen = canvas.getContext("2d"), pixels = pen.createImageData(grid.columns, grid.rows);
  grid.per_mm2.forEach((value, i) => {
    const part = grid.most ? value / grid.most : 0;
    pixels.data.set([213, Math.round(160 - 66 * part), 0, Math.round(255 * Math.min(1, 1.15 * part))], 4 * i);
  });
  pen.putImageData(pixels, 0, 0);
  return { canvas, width: grid.columns * grid.cell_px, height: grid.rows * grid.cell_px };
}
