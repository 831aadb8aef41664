// The filters of the explorer, and how they stand in the address.

import { choice, h } from "./dom.js";
import { NAMES } from "./subtypes.js";

export const EMPTY = { rater: "", column: "", subtype: "", predicted: "", disagreement: "", scanner: "", domain: "",
  patient: "", part: "", status: "", issue: "", low: 0, high: 100, search: "", sort: "" };

export function readState(table, params) {
  const state = { ...EMPTY, ...Object.fromEntries([...params].filter(([key]) => key in EMPTY)) };
  state.low = Math.min(Math.max(Number(state.low) || 0, 0), 100);
  state.high = state.high === "" ? 100 : Math.min(Math.max(Number(state.high), 0), 100);
  if (!table.raters.includes(state.rater)) state.rater = table.label ?? "";
  const columns = columnsOf(table, state.rater).map(([key]) => key);
  if (!columns.includes(state.column)) state.column = columns[0] ?? "";
  return state;
}

export function writeState(table, state) {
  const params = new URLSearchParams();
  for (const [key, value] of Object.entries(state))
    if (String(value) !== String(EMPTY[key]) && !(key === "rater" && value === table.label) && !(key === "column" && value === "model"))
      params.set(key, value);
  return params.toString();
}

export const columnsOf = (table, rater) => [
  ...(table.answers ? [["model", "the model"]] : []),
  ...table.raters.filter((other) => other !== rater).map((other) => [other, other]),
];

const subtypes = (any) => [["", any], ["atypical", "Any atypical"], ["normal", "Any normal"], ...NAMES.map((name, i) => [String(i), name])];

// Whose labels are held against what: first, as the confusion matrix and the filters follow from it.
export function whoForm(table, state, changed) {
  const columns = columnsOf(table, state.rater);
  return h("div", { class: "who filters" },
    table.raters.length ? choice("Labels of", table.raters.map((r) => [r, r]), state.rater, (rater) => changed({ rater })) : null,
    columns.length ? choice("against", columns, state.column, (column) => changed({ column })) : null);
}

export function filterForm(table, state, changed) {
  const set = (key) => (value) => changed({ [key]: value });
  const groups = (column, any) => {
    const group = table.group(column);
    return group && group.names.length > 1
      ? choice(any[0], [["", any[1]], ...group.names.map((name) => [name, name.replaceAll("_", " ") || "not known"])], state[column], set(column)) : null;
  };
  const typed = (key, title, props) => {
    let waiting = 0;
    const input = h("input", { ...props, value: state[key], on: { input: () => {
      clearTimeout(waiting);
      waiting = setTimeout(() => changed({ [key]: props.type === "number" ? Number(input.value) : input.value }), 150);
    } } });
    return title ? h("label", {}, h("span", {}, title), input) : input;
  };
  const patients = table.group("patient").names;
  const list = h("datalist", { id: "patients" }, patients.map((name) => h("option", { value: name })));
  const patient = h("input", { type: "text", list: "patients", value: state.patient, placeholder: `all ${patients.length}`,
    on: { change: () => changed({ patient: patient.value }) } });
  return h("div", { class: "more filters" },
    table.raters.length ? choice("Label", subtypes("any label"), state.subtype, set("subtype")) : null,
    columnsOf(table, state.rater).length ? choice(state.column === "model" ? "Prediction" : "Other label", subtypes("any"), state.predicted, set("predicted")) : null,
    table.raters.length && state.column ? choice("Disagreement", [["", "agree or not"], ["wrong", `${state.column} is not ${state.rater}`],
      ["right", "both say the same"], ["crosses", "atypical against normal"],
      ...(table.raters.length > 1 ? [["raters", "the raters disagree"]] : [])], state.disagreement, set("disagreement"), { class: "wide" }) : null,
    groups("scanner", ["Scanner", "all scanners"]), groups("domain", ["Domain", "all domains"]),
    h("label", {}, h("span", {}, "Patient"), patient, list), groups("part", ["Part", "all parts"]), groups("status", ["Answer", "answered or not"]),
    h("label", {}, h("span", {}, "Name contains"), typed("search", "", { type: "search" })),
    table.answers ? h("fieldset", { class: "wide" }, h("legend", {}, "Confidence, %"),
      typed("low", "", { type: "number", min: 0, max: 100, step: 1, "aria-label": "Confidence from, %" }), h("span", { "aria-hidden": "true" }, "to"),
      typed("high", "", { type: "number", min: 0, max: 100, step: 1, "aria-label": "Confidence to, %" })) : null,
    table.doubt ? choice("Label audit", [["", "all figures"], ["1", "labels that are probably wrong"]], state.issue, set("issue"), { class: "wide" }) : null);
}

export const sorts = (table) => [["", "Order of the table"],
  ...(table.answers && table.raters.length ? [["loss", "Largest loss first"]] : []),
  ...(table.doubt ? [["doubt", "Rank of the label audit"]] : []),
  ...(table.answers ? [["unsure", "Least sure first"], ["sure", "Most sure first"], ["atypical", "Most atypical first"]] : [])];
