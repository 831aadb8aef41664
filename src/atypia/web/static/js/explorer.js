// Every figure as a tile: filter, sort, click a cell of the confusion matrix.

import { choice, h } from "./dom.js";
import { agreementOf, confusion } from "./confusion.js";
import { filterForm, readState, sorts, whoForm, writeState } from "./filters.js";
import { NAMES } from "./subtypes.js";
import { chooseCell, chooseWithoutCell, countCells, sortFigures } from "./table.js";
import { Wall } from "./wall.js";

export async function show(root, context, { query }) {
  const table = await context.table();
  let state = readState(table, query);
  const wall = new Wall(context.about.tiles, { name: "Figures", marks: (i) => marksOf(table, state, i), pale: (i) => table.answers?.why(i), title: (i) => titleOf(table, state, i) });
  const who = h("div", {}), filters = h("div", {}), matrix = h("div", {}), count = h("span", { class: "count", role: "status" });
  const nothing = h("p", { class: "nothing", hidden: true }, "No figure passes these filters.");
  const wide = matchMedia("(min-width: 46.01rem)").matches;
  const clear = h("button", { type: "button", class: "quiet", on: { click: () => change({ ...readState(table, new URLSearchParams()), sort: state.sort }) } }, "Clear filters");
  const sort = h("div", {});
  root.replaceChildren(h("div", { class: "explorer" },
    h("aside", { "aria-label": "Filters" }, h("details", { open: wide }, h("summary", {}, "Agreement and filters"), who, matrix, filters)),
    h("section", { "aria-label": "Figures" }, h("h1", { class: "hidden-title" }, "Explorer"), h("div", { class: "head" }, count, clear, sort,
      h("small", { class: "key" }, table.answers ? `Below each tile: ${state.rater || "label"}, prediction` : "Below each tile: labels")), nothing, wall.element)));

  function change(changes) {
    const focused = document.activeElement?.closest(".filters label, .confusion td, .head label");
    const again = focused && [focused.parentElement.className, [...focused.parentElement.children].indexOf(focused), focused.closest("tr")?.rowIndex];
    state = readState(table, new URLSearchParams(Object.entries({ ...state, ...changes })));
    history.replaceState(null, "", `#/explorer?${writeState(table, state)}`);
    update(!("low" in changes || "high" in changes || "search" in changes) || Object.keys(changes).length > 1);
    if (again && !root.contains(document.activeElement)) {
      const parent = again[0] ? root.querySelector(`.${again[0].split(" ")[0]}`) : root.querySelectorAll(".confusion tr")[again[2]];
      parent?.children[again[1]]?.querySelector("select, input, button")?.focus();
    }
  }
  function update(rebuild = true, keepPlace = false) {
    const before = chooseWithoutCell(table, state);
    const figures = sortFigures(table, state, chooseCell(table, state, before));
    if (rebuild) {
      who.replaceChildren(whoForm(table, state, change));
      filters.replaceChildren(filterForm(table, state, change));
      sort.replaceChildren(choice("Sort", sorts(table), state.sort, (value) => change({ sort: value })));
    }
    const truth = table.says(state.rater), other = table.says(state.column);
    const counts = truth && other ? countCells(truth, other, before) : null;
    matrix.replaceChildren(counts ? agreement(agreementOf(counts), state) : "", counts ? confusion(counts, {
      rows: state.rater, columns: state.column === "model" ? "the model" : state.column, chosen: [state.subtype, state.predicted],
      choose: (r, c) => {
        const same = state.subtype === String(r) && state.predicted === String(c);
        change(same ? { subtype: "", predicted: "" } : { subtype: String(r), predicted: String(c) });
      } }) : "");
    const apart = table.answers ? figures.filter((i) => table.answers.why(i)).length : 0;
    count.textContent = (figures.length === table.n ? `${table.n.toLocaleString("en")} figures` : `${figures.length.toLocaleString("en")} of ${table.n.toLocaleString("en")} figures`)
      + (apart ? `, ${apart.toLocaleString("en")} without a call` : "");
    clear.hidden = writeState(table, { ...state, sort: "" }) === "";
    nothing.hidden = figures.length > 0;
    context.selection = { figures, back: location.hash };
    wall.set(figures, keepPlace);
    wall.element.scrollTop = keepPlace ? context.scroll ?? 0 : 0;
  }
  const returning = context.left === location.hash;
  update(true, returning);
  if (returning && context.current !== undefined) {
    const at = wall.figures.indexOf(context.current);
    if (at >= 0) wall.current = at;
    wall.element.focus({ preventScroll: true });
    wall.point(true);
  }
  return () => {
    context.left = context.selection.back;
    context.scroll = wall.element.scrollTop;
    wall.close();
  };
}

function agreement(found, state) {
  if (!found) return "";
  const who = state.column === "model" ? "the model" : state.column;
  const share = (part, what) => h("div", {}, h("strong", {}, `${(100 * part).toFixed(1)} %`), h("span", {}, what));
  return h("div", { class: "agree", role: "group", "aria-label": `${state.rater} and ${who} on ${found.all.toLocaleString("en")} figures` },
    share(found.same, `same subtype by ${who} and ${state.rater}`), share(found.side, "same side: atypical or normal"));
}

export function marksOf(table, state, i) {
  const sources = [table.says(state.rater), table.says(state.column)].filter(Boolean);
  return sources.map((says) => says[i]);
}

export function titleOf(table, state, i) {
  const parts = [table.ids[i]];
  const label = table.says(state.rater)?.[i];
  if (label >= 0) parts.push(`${state.rater}: ${NAMES[label]}`);
  const { answers } = table;
  if (answers?.why(i)) parts.push(`model: not answered, ${answers.why(i)}`);
  if (answers && answers.predicted[i] >= 0) parts.push(`model: ${NAMES[answers.predicted[i]]}, ${(100 * answers.probability(i, answers.predicted[i])).toFixed(0)} %`);
  return parts.join("; ");
}
