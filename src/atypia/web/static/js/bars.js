// Eight probabilities as bars, what is in the prediction set, and who says what.

import { h, percent } from "./dom.js";
import { NAMES, why } from "./subtypes.js";

// said: [name, subtype] of raters and reviewers.
export function bars(answer, said, title, { sets = true } = {}) {
  const known = answer !== null && answer !== undefined;
  const withSet = known && sets && answer.set !== null;
  return h("table", { class: "bars" },
    h("caption", {}, title, known && withSet ? h("small", { class: "soft" }, " · ● in the prediction set") : null),
    h("thead", {}, h("tr", {}, h("th", { scope: "col", class: "text" }, "Subtype"),
      known ? [h("th", { scope: "col", class: "text" }, "Probability"), h("th", { scope: "col" }, h("span", { class: "hidden-title" }, "in percent"))] : null,
      withSet ? h("th", { scope: "col" }, "Set") : null,
      said.length ? h("th", { scope: "col", class: "text" }, "Labelled by") : null)),
    h("tbody", {}, NAMES.map((name, s) => {
      const inside = withSet && answer.set.includes(s);
      const fill = h("span", { class: "fill" });
      if (known) fill.style.width = `${100 * answer.probabilities[s]}%`;
      return h("tr", { "data-subtype": s, class: [known && s === answer.predicted ? "top" : "", withSet && !inside ? "outside" : ""].join(" ").trim() || null },
        h("th", { scope: "row" }, h("span", { class: "swatch" }), name),
        known ? [h("td", { class: "bar-cell" }, h("span", { class: "track" }, fill)), h("td", {}, percent(answer.probabilities[s]))] : null,
        withSet ? h("td", {}, inside ? h("span", { role: "img", "aria-label": "in the set" }, "●") : "") : null,
        said.length ? h("td", { class: "text who" }, said.filter(([, label]) => label === s).map(([who]) => who).join(", ")) : null);
    })));
}

export function summary(answer) {
  if (!answer) return "The model was not asked.";
  if (why(answer.status)) return `Not answered: ${why(answer.status)}`;
  const call = answer.called_atypical ?? answer.predicted_atypical;
  const at = answer.threshold ? ` at ${percent(answer.threshold)} (${answer.operating_point})` : "";
  return `${percent(answer.p_atypical)} atypical: called ${call ? "atypical" : "normal"}${at}`;
}
