// The frame: pages by address, what the server has, and who hears when it fails.

import { ask } from "./api.js";
import { h, problemList } from "./dom.js";
import { Table } from "./table.js";
import { themeButton } from "./theme.js";

const PAGES = { slide: "Slide", explorer: "Explorer", review: "Review", drop: "Classify", compare: "Compare" };
const MODULES = { explorer: "./explorer.js", figure: "./figure.js", review: "./review.js",
  drop: "./drop.js", compare: "./compare.js", slide: "./slide.js" };

const context = { about: null, tableLoading: null, selection: null,
  table() { return (this.tableLoading ??= ask("/web/figures").then((json) => new Table(json))); } };
const root = document.getElementById("page");
let leave = null, turn = 0;

function place() {
  const [path, query] = location.hash.replace(/^#\/?/, "").split("?");
  const [page, ...rest] = path.split("/");
  return { page, rest, query: new URLSearchParams(query ?? "") };
}

async function go() {
  const mine = ++turn;
  let { page, rest, query } = place();
  const { pages } = context.about;
  if (page === "") {
    page = pages[0];
    history.replaceState(null, "", `#/${page}`); // so that every page has an address to come back to
  }
  leave?.();
  leave = null;
  for (const link of document.querySelectorAll("#pages a")) {
    if (link.dataset.page === page) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = `${PAGES[page] ?? "Figure"} · ${context.about.name} · Atypia`;
  try {
    if (!MODULES[page] || (page !== "figure" && !pages.includes(page))) throw { problems: ["There is no such page here."] };
    const module = await import(MODULES[page]);
    const closing = await module.show(root, context, { rest, query });
    if (mine === turn) leave = closing;
    else closing?.();
  } catch (error) {
    if (!error.problems) console.error(error);
    root.replaceChildren(h("div", { class: "plain" }, problemList(error.problems ?? ["This page failed. Load it again."])));
  }
}

async function start() {
  themeButton(document.getElementById("theme"));
  try {
    context.about = await ask("/web/about");
  } catch (error) {
    root.replaceChildren(h("div", { class: "plain" }, problemList(error.problems)));
    return;
  }
  const source = document.getElementById("source");
  source.textContent = context.about.name;
  source.title = context.about.name;
  source.dir = "auto";
  document.getElementById("pages").replaceChildren(...context.about.pages.map((page) =>
    h("a", { href: `#/${page}`, "data-page": page }, PAGES[page])));
  addEventListener("hashchange", go);
  await go();
}

start();
