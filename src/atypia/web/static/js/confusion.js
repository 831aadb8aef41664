// The confusion matrix as buttons: a cell shows its figures.

import { h } from "./dom.js";
import { INITIALS, N, NAMES, SHORT, atypical } from "./subtypes.js";

export function confusion(counts, { rows, columns, chosen, choose }) {
  const head = h("tr", {}, h("td", {}), INITIALS.map((text, c) =>
    h("th", { scope: "col", "data-subtype": c, title: NAMES[c] }, h("abbr", { title: NAMES[c] }, text))));
  const body = counts.map((row, r) => {
    const total = row.reduce((a, b) => a + b, 0);
    return h("tr", {}, h("th", { scope: "row", "data-subtype": r, title: NAMES[r] }, h("span", { class: "swatch" }), SHORT[r]),
      row.map((count, c) => {
        const share = h("i", { "aria-hidden": "true" });
        share.style.opacity = total ? (count / total) ** 0.7 * 0.62 : 0;
        return h("td", { class: r === c ? "right" : "wrong" }, h("button", {
          type: "button", class: count ? "some" : "none", title: `${NAMES[r]} → ${NAMES[c]}: ${count.toLocaleString("en")}`, "aria-pressed": String(chosen[0] === String(r) && chosen[1] === String(c)),
          "aria-label": `${NAMES[r]} by ${rows}, ${NAMES[c]} by ${columns}: ${count}`,
          on: { click: () => choose(r, c) } }, share, h("span", {}, String(count))));
      }));
  });
  console.assert(counts.length === N);
  return h("table", { class: "confusion" },
    h("caption", {}, `Rows: ${rows}. Columns: ${columns}. A cell shows its figures.`),
    h("thead", {}, head), h("tbody", {}, body));
}

// How often both say the same: of all subtypes, and of atypical against normal.
export function agreementOf(counts) {
  let all = 0, same = 0, side = 0;
  counts.forEach((row, r) => row.forEach((count, c) => {
    all += count;
    if (r === c) same += count;
    if (atypical(r) === atypical(c)) side += count;
  }));
  return all ? { all, same: same / all, side: side / all } : null;
}
