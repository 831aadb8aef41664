// The table of figures in columns, and what is chosen and sorted from it.

import { N, atypical, why } from "./subtypes.js";

const UNIT = 1e4;

export class Answers {
  constructor(columns) {
    this.p = columns.probabilities;
    this.pAtypical = columns.atypical;
    this.predicted = columns.predicted;
    this.called = columns.called;
    this.part = columns.part;
    this.status = columns.status;
  }
  why(i) { return why(this.status.names[this.status.codes[i]]); }
  probability(i, subtype) { return this.p[i * N + subtype] / UNIT; }
  confidence(i) { return this.predicted[i] < 0 ? 0 : Math.max(...this.p.slice(i * N, i * N + N)) / UNIT; }
  // Rounded probabilities end at a half of the unit.
  loss(i, subtype) { return subtype < 0 || this.predicted[i] < 0 ? -1 : -Math.log(Math.max(this.p[i * N + subtype], 0.5) / UNIT); }
}

export class Table {
  constructor(json) {
    this.json = json;
    this.n = json.n;
    this.ids = json.ids;
    this.raters = Object.keys(json.labels);
    this.label = json.label;
    this.answers = json.answers && new Answers(json.answers);
    this.doubt = json.doubt;
    this.order = json.ids.map((_, i) => i);
  }
  // What a rater, or the model, says of every figure; -1 where nothing.
  says(who) { return who === "model" ? this.answers?.predicted : this.json.labels[who]; }
  group(column) { return ["part", "status"].includes(column) ? this.answers?.[column] : this.json[column]; }
}

const DISAGREEMENTS = {
  wrong: (a, b) => a >= 0 && b >= 0 && a !== b,
  right: (a, b) => a >= 0 && a === b,
  crosses: (a, b) => a >= 0 && b >= 0 && atypical(a) !== atypical(b),
};

function ratersDisagree(table) {
  const all = table.raters.map((rater) => table.says(rater));
  return (i) => {
    const given = all.map((labels) => labels[i]).filter((label) => label >= 0);
    return given.length > 1 && given.some((label) => label !== given[0]);
  };
}

// Figures that pass all filters but those on the label and the prediction: of these the confusion
// matrix is made.
export function chooseWithoutCell(table, state) {
  const tests = [];
  const truth = table.says(state.rater), other = table.says(state.column);
  for (const column of ["scanner", "domain", "patient", "part", "status"]) {
    const group = table.group(column);
    if (state[column] && group) {
      const code = group.names.indexOf(state[column]);
      tests.push((i) => group.codes[i] === code);
    }
  }
  if (state.disagreement === "raters") tests.push(ratersDisagree(table));
  else if (state.disagreement && truth && other) {
    const test = DISAGREEMENTS[state.disagreement];
    tests.push((i) => test(truth[i], other[i]));
  }
  if (state.issue && table.doubt) tests.push((i) => table.doubt.issue[i] === 1);
  if (table.answers && (state.low > 0 || state.high < 100))
    tests.push((i) => {
      const confidence = 100 * table.answers.confidence(i);
      return table.answers.predicted[i] >= 0 && confidence >= state.low && confidence <= state.high;
    });
  if (state.search) {
    const word = state.search.toLowerCase();
    tests.push((i) => table.ids[i].toLowerCase().includes(word));
  }
  return table.order.filter((i) => tests.every((test) => test(i)));
}

const matches = (wanted, subtype) =>
  wanted === "" || (wanted === "atypical" ? atypical(subtype) : wanted === "normal" ? subtype >= 4 : Number(wanted) === subtype);

export function chooseCell(table, state, figures) {
  const truth = table.says(state.rater), other = table.says(state.column);
  return figures.filter((i) =>
    (state.subtype === "" || (truth && matches(state.subtype, truth[i]))) &&
    (state.predicted === "" || (other && matches(state.predicted, other[i]))));
}

export function sortFigures(table, state, figures) {
  const { answers, doubt } = table;
  const truth = table.says(state.rater);
  const key = {
    loss: answers && truth && ((i) => -answers.loss(i, truth[i])),
    doubt: doubt && ((i) => doubt.rank[i] || Infinity),
    unsure: answers && ((i) => answers.confidence(i) || Infinity),
    sure: answers && ((i) => -answers.confidence(i)),
    atypical: answers && ((i) => -answers.pAtypical[i]),
  }[state.sort];
  if (!key) return figures;
  const keys = new Map(figures.map((i) => [i, key(i)]));
  return [...figures].sort((a, b) => (keys.get(a) === keys.get(b) ? a - b : keys.get(a) - keys.get(b)));
}

export function countCells(rows, columns, figures) {
  const counts = Array.from({ length: N }, () => new Array(N).fill(0));
  for (const i of figures) if (rows[i] >= 0 && columns[i] >= 0) counts[rows[i]][columns[i]] += 1;
  return counts;
}
