"use strict";
// Adds to a page that is whole without it: tables that sort, cells that unfold, a line of text that
// tells what the pointer finds on a curve. Nothing here makes markup out of text.
(() => {
  const make = (name, properties) => Object.assign(document.createElement(name), properties);

  // A link into something folded unfolds it, in browsers too that do not do so by themselves.
  const unfold = () => {
    const target = location.hash ? document.getElementById(location.hash.slice(1)) : null;
    const folded = target && target.closest("details");
    if (!folded) return;
    folded.open = true;
    folded.scrollIntoView({ block: "start" });
    folded.querySelector("summary").focus({ preventScroll: true });
  };
  addEventListener("hashchange", unfold);
  unfold();

  const number = (cell) => {
    const found = cell.textContent.replace(/,(?=\d{3})/g, "").replace("−", "-").match(/-?\d+(\.\d+)?/);
    return found ? Number(found[0]) : null;
  };

  const sortable = (table) => {
    const body = table.tBodies[0];
    const original = [...body.rows];
    const taken = [];  // columns of each head row that cells from above reach into
    const headings = [];
    [...table.tHead.rows].forEach((row, i) => {
      let column = 0;
      for (const cell of row.cells) {
        while (taken[i] && taken[i][column]) column += 1;
        for (let down = 0; down < cell.rowSpan; down += 1)
          for (let across = 0; across < cell.colSpan; across += 1)
            (taken[i + down] = taken[i + down] || [])[column + across] = true;
        if (cell.colSpan === 1 && i + cell.rowSpan === table.tHead.rows.length)
          headings.push({ cell, column });
        column += cell.colSpan;
      }
    });
    let state = { column: -1, descending: true };
    const sort = (heading) => {
      const again = state.column === heading.column;
      const off = again && !state.descending;
      state = off ? { column: -1, descending: true }
        : { column: heading.column, descending: !again };
      for (const other of headings) other.cell.removeAttribute("aria-sort");
      table.classList.toggle("sorted", !off);
      if (off) return body.append(...original);
      heading.cell.setAttribute("aria-sort", state.descending ? "descending" : "ascending");
      const sign = state.descending ? -1 : 1;
      const keyed = original.map((row) => ({
        row, text: row.cells[heading.column].textContent, value: number(row.cells[heading.column]),
      }));
      const words = heading.column === 0;
      keyed.sort((a, b) => {
        if (words) return -sign * a.text.localeCompare(b.text);  // A to Z first
        if (a.value === null || b.value === null) return (a.value === null) - (b.value === null);
        return sign * (a.value - b.value);
      });
      body.append(...keyed.map((entry) => entry.row));
    };
    for (const heading of headings) {
      const button = make("button", { type: "button", className: "sort" });
      button.append(...heading.cell.childNodes);
      if (!button.textContent.trim()) button.setAttribute("aria-label", "Sort by name");
      heading.cell.append(button);
      button.addEventListener("click", () => sort(heading));
    }
  };
  document.querySelectorAll("table[data-sortable]").forEach(sortable);

  const NEAR = 26;  // px
  document.querySelectorAll("svg .hints").forEach((group) => {
    const dots = [...group.children];
    const svg = group.ownerSVGElement;
    const output = make("output", { className: "hint", textContent: "Point at a curve to read it." });
    svg.after(output);
    let shown = null;
    const show = (dot) => {
      if (dot === shown) return;
      if (shown) shown.classList.remove("near");
      if (dot) dot.classList.add("near");
      shown = dot;
      output.textContent = dot ? dot.querySelector("title").textContent : "";
    };
    svg.addEventListener("pointermove", (event) => {
      let best = null;
      let least = NEAR * NEAR;
      for (const dot of dots) {
        const box = dot.getBoundingClientRect();
        const away = (box.x + box.width / 2 - event.clientX) ** 2
          + (box.y + box.height / 2 - event.clientY) ** 2;
        if (away < least) [best, least] = [dot, away];
      }
      if (best) show(best);
    });
  });
})();
