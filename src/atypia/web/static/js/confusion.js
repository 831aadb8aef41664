// The confusion matrix as buttons: a cell shows its figures.

import { h } from "./dom.js";
import { INITIALS, N, NAMES, SHORT } from "./subtypes.js";

export function confusion(counts, { rows, columns, chosen, choose }) {
  const head = h("tr", {}, h("td", {}), INITIALS.map((text, c) =>
    h("th", { scope: "col", "data-subtype": c, title: NAMES[c] }, h("abbr", { title: NAMES[c] }, text))));
  const body = counts.map((row, r) => {
    const total = row.reduce((a, b) => a + b, 0);
    return h("tr", {}, h("th", { scope: "row", "data-subtype": r, title: NAMES[r] }, h("span", { class: "swatch" }), SHORT[r]),
      row.map((count, c) => {
        const share = h("i", { "aria-hidden": "true" });
        share.style.transform = `scaleX(${total ? count / total : 0})`;
        return h("td", { class: r === c ? "right" : "wrong" }, h("button", {
          type: "button", class: count ? "some" : "none", "aria-pressed": String(chosen[0] === String(r) && chosen[1] === String(c)),
          "aria-label": `${NAMES[r]} by ${rows}, ${NAMES[c]} by ${columns}: ${count}`,
          on: { click: () => choose(r, c) } }, String(count), share));
      }));
  });
  console.assert(counts.length === N);
  return h("table", { class: "confusion" },
    h("caption", {}, `Rows: ${rows}. Columns: ${columns}. A cell shows its figures.`),
    h("thead", {}, head), h("tbody", {}, body));
}
