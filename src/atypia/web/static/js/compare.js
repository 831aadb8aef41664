// Two models side by side: their measures, and the figures on which they differ.

import { ask } from "./api.js";
import { choice, h, named, problemList } from "./dom.js";
import { confusion } from "./confusion.js";
import { NAMES, atypical } from "./subtypes.js";
import { Answers, countCells } from "./table.js";
import { Wall } from "./wall.js";

const SHOWN = { mean_auc: "Mean AUC", balanced_accuracy: "Balanced accuracy", macro_f1: "Macro-F1", accuracy: "Accuracy", kappa: "Cohen's κ",
  log_loss: "Log loss", ece: "Calibration error", "binary.auc": "Atypical or normal: AUC", "binary.at_operating_point.balanced_accuracy": "Atypical or normal: balanced accuracy" };

export async function show(root, context) {
  const [table, other] = await Promise.all([context.table(), ask("/web/comparison")]);
  const a = table.answers, b = new Answers(other.answers);
  const truth = table.label ? table.says(table.label) : null;
  let state = { rule: "differ", cell: ["", ""], sort: "apart" };
  const both = table.order.filter((i) => a.predicted[i] >= 0 && b.predicted[i] >= 0);
  const apart = table.order.filter((i) => a.why(i) || b.why(i)).length;
  const rules = { differ: ["they give different subtypes", (i) => a.predicted[i] !== b.predicted[i]],
    ...(truth ? { gained: ["A is wrong and B is right", (i) => a.predicted[i] !== truth[i] && b.predicted[i] === truth[i]],
      lost: ["A is right and B is wrong", (i) => a.predicted[i] === truth[i] && b.predicted[i] !== truth[i]] } : {}),
    crosses: ["one says atypical, the other normal", (i) => atypical(a.predicted[i]) !== atypical(b.predicted[i])],
    calls: ["their calls at the threshold differ", (i) => a.called[i] !== b.called[i]],
    all: ["both have answered", () => true] };
  const wall = new Wall(context.about.tiles, { name: "Figures on which the runs differ",
    marks: (i) => [...(truth ? [truth[i]] : []), a.predicted[i], b.predicted[i]],
    title: (i) => `${table.ids[i]}; ${truth && truth[i] >= 0 ? `${table.label}: ${NAMES[truth[i]]}; ` : ""}A: ${NAMES[a.predicted[i]]}; B: ${NAMES[b.predicted[i]]}` });
  const controls = h("div", { class: "head" }), matrix = h("div", {}), measures = h("div", {}, h("p", { class: "soft" }, "Comparing by patients …"));
  const count = h("span", { class: "count", role: "status" }), nothing = h("p", { class: "nothing", hidden: true }, "There is no such figure.");
  root.replaceChildren(h("div", { class: "compare" },
    h("aside", { "aria-label": "Measures" }, h("h1", {}, "A: ", named(context.about.name), h("br"), "B: ", named(other.name)), measures, matrix),
    h("section", { "aria-label": "Figures" }, controls, nothing, wall.element)));
  const apart = (i) => { let sum = 0; for (let s = 0; s < 8; s++) sum += Math.abs(a.probability(i, s) - b.probability(i, s)); return -sum; };

  function update(keep = false) {
    const before = both.filter(rules[state.rule][1]);
    const figures = before.filter((i) => (state.cell[0] === "" || a.predicted[i] === Number(state.cell[0])) && (state.cell[1] === "" || b.predicted[i] === Number(state.cell[1])));
    if (state.sort === "apart") {
      const keys = new Map(figures.map((i) => [i, apart(i)]));
      figures.sort((x, y) => keys.get(x) - keys.get(y));
    }
    const focused = document.activeElement?.tagName === "SELECT" ? [...controls.querySelectorAll("select")].indexOf(document.activeElement) : -1;
    controls.replaceChildren(count,
      choice("Figures where", Object.entries(rules).map(([key, [text]]) => [key, text]), state.rule, (rule) => { state = { ...state, rule, cell: ["", ""] }; update(); }),
      choice("Sort", [["apart", "Furthest apart first"], ["", "Order of the table"]], state.sort, (sort) => { state = { ...state, sort }; update(); }),
      h("small", { class: "key" }, `Below each tile: ${truth ? `${table.label}, ` : ""}A, B`));
    controls.querySelectorAll("select")[focused]?.focus();
    count.textContent = `${figures.length.toLocaleString("en")} of ${both.length.toLocaleString("en")} figures${apart ? `; ${apart} without a call of A or B` : ""}`;
    const pressed = document.activeElement?.closest(".confusion button")?.getAttribute("aria-label");
    matrix.replaceChildren(confusion(countCells(a.predicted, b.predicted, before), { rows: "A", columns: "B", chosen: state.cell,
      choose: (r, c) => {
        const same = state.cell[0] === String(r) && state.cell[1] === String(c);
        state = { ...state, cell: same ? ["", ""] : [String(r), String(c)] };
        update();
      } }));
    if (pressed) [...matrix.querySelectorAll("button")].find((one) => one.getAttribute("aria-label") === pressed)?.focus();
    nothing.hidden = figures.length > 0;
    context.selection = { figures, back: "#/compare" };
    wall.set(figures, keep);
  }
  update();
  ask("/web/comparison/measures").then((found) => measures.replaceChildren(measureTable(found)))
    .catch((error) => measures.replaceChildren(problemList(error.problems ?? ["The comparison failed."])));
  return () => wall.close();
}

function measureTable(found) {
  const [difference] = found.differences;
  const number = (x, sign = false) => (x === null ? "–" : `${sign && x > 0 ? "+" : ""}${x.toFixed(3)}`.replace("-", "−"));
  return h("div", {}, h("table", { class: "measures" },
    h("caption", { class: "hidden-title" }, "Measures of both"),
    h("thead", {}, h("tr", {}, h("td", {}), h("th", { scope: "col" }, "A"), h("th", { scope: "col" }, "B"), h("th", { scope: "col" }, "B − A"))),
    h("tbody", {}, Object.entries(SHOWN).filter(([key]) => key in difference.measures).map(([key, name]) => {
      const d = difference.measures[key];
      const sure = d.low !== null && (d.low > 0 || d.high < 0);
      return h("tr", { class: sure ? "sure" : null }, h("th", { scope: "row" }, name, found.lower_is_better.includes(key) ? h("small", {}, " (less is better)") : null),
        h("td", {}, number(found.measures[difference.minus][key])), h("td", {}, number(found.measures[difference.of][key])),
        h("td", {}, number(d.value, true), h("br"), h("small", {}, `${number(d.low, true)} to ${number(d.high, true)}`)));
    }))),
    h("p", { class: "soft" }, `${found.n.toLocaleString("en")} figures of ${found.n_patients} patients by ${found.label}; 95 % intervals from ${found.interval.resamples} resamples of patients.`));
}
