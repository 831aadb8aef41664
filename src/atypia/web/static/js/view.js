// The large picture of a figure, with its scale, a heat map and outlines above it.

import { image } from "./api.js";
import { h, svg } from "./dom.js";

export function view(number, mpp, title) {
  const patch = h("img", { class: "patch", alt: title, src: image(number) });
  const scale = h("span", { class: "scale", hidden: true });
  const box = h("div", { class: "view" }, patch, scale);
  patch.addEventListener("load", () => {
    const um = patch.naturalWidth * mpp;
    const bar = um > 40 ? 10 : 5;
    scale.hidden = !Number.isFinite(um) || um <= 0;
    scale.style.width = `${(100 * bar) / um}%`;
    scale.textContent = `${bar} µm`;
  });
  patch.addEventListener("error", () => box.append(h("p", { class: "problems" }, "This picture cannot be read.")));
  return { box, patch };
}

export function heatLayer(box, opacity) {
  const layer = h("img", { class: "heat", alt: "", hidden: true });
  layer.style.opacity = opacity;
  box.querySelector("img").after(layer);
  return layer;
}

// contours: lists of [x, y] in px of the picture; lines: {ends, text}.
export function drawing(box, reading, size) {
  const path = (points, closed) => points.map(([x, y], i) => `${i ? "L" : "M"}${x} ${y}`).join("") + (closed ? "Z" : "");
  const text = ({ ends, text: words }) => { // beyond the end that is farther right, off the figure
    const [a, b] = ends[0][0] > ends[1][0] ? [ends[1], ends[0]] : ends;
    return svg("text", { x: b[0] + size[0] / 90, y: b[1] + (b[1] < a[1] ? 0 : size[1] / 36), "font-size": size[0] / 34, "stroke-width": size[0] / 150 }, words);
  };
  const layer = svg("svg", { viewBox: `0 0 ${size[0]} ${size[1]}`, "aria-hidden": "true" },
    (reading.contours ?? []).map((points) => svg("path", { d: path(points, true) })),
    (reading.lines ?? []).map((line) => [svg("path", { class: "length", d: path(line.ends, false) }), text(line)]));
  box.append(layer);
  return layer;
}
