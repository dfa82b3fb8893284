"use strict";
// Sorts, filters and pages the tables. Without it every summary table is complete; only the table of runs needs it.
(() => {
  const BLANK = "-";
  const RUN_ID = "{}";
  const PAGE = 100; // rows drawn at once: no browser copes with 100,000 rows in one table
  const PAUSE = 120; // ms after a key before filtering, so that counts are announced once per word

  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const counted = (number) => number.toLocaleString("en-US");

  // Text is always set as text, never as HTML, because names may contain anything.
  function element(name, properties = {}, ...children) {
    const made = Object.assign(document.createElement(name), properties);
    made.append(...children);
    return made;
  }

  // Returns the number that a text such as `83.1 ± 0.4`, `1,088` or `5/5` begins with, NaN for words; as in page.py.
  function numberOf(text) {
    const found = /^([+-]?[\d,]*\.?\d+(e[+-]?\d+)?)($|[\s/%†-])/i.exec(text);
    return found ? Number(found[1].replaceAll(",", "")) : NaN;
  }

  // Sorts row numbers in place by one column, blank cells last in both directions. The sort is stable, so that
  // sorting by one column and then another sorts by both.
  function sort(rows, textOf, direction) {
    const texts = [];
    for (const row of rows) texts[row] = textOf(row);
    const blank = texts.map((text) => text === "" || text === BLANK);
    const numbers = texts.map(numberOf);
    const numeric = numbers.every((number, row) => blank[row] || !Number.isNaN(number));
    const keys = numeric ? numbers : texts.map((text) => text.toLowerCase());
    rows.sort((a, b) => {
      if (blank[a] || blank[b]) return blank[a] - blank[b];
      return direction * (keys[a] < keys[b] ? -1 : keys[a] > keys[b] ? 1 : 0);
    });
  }

  // Turns the headings of a table into buttons that sort its rows.
  function sortable(table, rows, textOf, changed) {
    const heads = all("th[data-column]", table);
    for (const head of heads) {
      const button = element("button", { type: "button" }, ...head.childNodes);
      button.addEventListener("click", () => {
        const direction = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
        for (const other of heads) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", direction > 0 ? "ascending" : "descending");
        const column = Number(head.dataset.column);
        sort(rows, (row) => textOf(row, column), direction);
        changed();
      });
      head.append(button);
    }
  }

  // Column names without spaces, for filters: `mean of groups` becomes mean_of_groups.
  const plain = (name) => name.toLowerCase().replace(/[^\p{L}\p{N}]+/gu, "_").replace(/^_|_$/g, "");

  // Compares values as --filter does: `1.0` equals 1, and `83.1` equals `83.1 ± 0.4 ‡`.
  function same(text, value) {
    if (text.toLowerCase() === value) return true;
    const number = Number(value.replaceAll(",", ""));
    return number === Number(text.split(" ")[0].replaceAll(",", "")) && text !== "";
  }

  // Turns a query into a test of rows. `columns` have a name and text(row); words are searched for in `words(row)`.
  function parse(query, columns, words) {
    const tests = [];
    const unknown = [];
    for (const word of query.toLowerCase().match(/(?:"[^"]*"?|[^\s"])+/g) ?? []) {
      const bare = word.replaceAll('"', "");
      const at = word.startsWith('"') ? -1 : bare.indexOf("=");
      if (at < 1) {
        tests.push((row) => words(row).includes(bare));
        continue;
      }
      const name = bare.slice(0, at);
      const value = bare.slice(at + 1);
      const asked = columns.filter((column) => plain(column.name) === plain(name));
      if (!asked.length) unknown.push(name);
      if (value) tests.push((row) => asked.some((column) => same(column.text(row), value)));
    }
    return { fits: (row) => tests.every((test) => test(row)), unknown };
  }

  // Connects a filter box. `changed(fits)` shows the rows that fit and returns their number.
  function filterable(box, count, shown, columns, changed) {
    const input = box.querySelector("input");
    const output = box.querySelector("output");
    const cache = [];
    const words = (row) => (cache[row] ??= shown.map((column) => column.text(row)).join("\n").toLowerCase());
    function apply() {
      const { fits, unknown } = parse(input.value, columns, words);
      const kept = changed(fits);
      const names = [...new Set(shown.map((column) => column.name))].join(", ");
      const problem = unknown.map((name) => `; no column “${name}” (columns: ${names})`).join("");
      output.textContent = `${counted(kept)} of ${counted(count)} rows${problem}`;
    }
    let timer = 0;
    input.addEventListener("input", () => {
      clearTimeout(timer);
      timer = setTimeout(apply, PAUSE);
    });
    box.hidden = false;
    apply(); // a browser may have kept the text of an earlier visit
  }

  // The summary tables of a section have the same rows: one filter hides a row in all of them.
  function wireTables(section) {
    const tables = all("table.data", section);
    const rows = tables.map((table) => [...table.tBodies[0].rows]);
    // Leaves out the words for screen readers, such as `best`.
    const textOf = (cell) =>
      [...cell.childNodes].map((node) => (node.className === "sr" ? "" : node.textContent)).join("");
    const texts = rows.map((body) => body.map((row) => [...row.cells].map(textOf)));
    const columns = tables.flatMap((table, number) =>
      all("th[data-column]", table)
        .map((head) => [Number(head.dataset.column), head.textContent])
        .sort((a, b) => a[0] - b[0]) // headings in two rows are not in the order of the columns
        .map(([column, name]) => ({ name, text: (row) => texts[number][row][column] })),
    );
    tables.forEach((table, number) => {
      const order = [...rows[number].keys()];
      const draw = () => table.tBodies[0].append(...order.map((row) => rows[number][row]));
      sortable(table, order, (row, column) => texts[number][row][column], draw);
    });
    const box = section.querySelector(".filter");
    if (!box) return;
    const count = rows[0].length;
    filterable(box, count, columns, columns, (fits) => {
      const kept = rows[0].map((_, number) => fits(number));
      for (const body of rows) body.forEach((row, number) => (row.hidden = !kept[number]));
      return kept.filter(Boolean).length;
    });
  }

  // Decodes a column that `_coded` in page_rows.py encoded: values, or distinct values and the number of each run's.
  function reader({ v, i }) {
    const value = i ? (run) => v[i[run]] : v.length === 1 ? () => v[0] : (run) => v[run];
    return (run) => String(value(run) ?? "") || BLANK;
  }

  const columnsOf = (held) => Object.entries(held).map(([name, column]) => ({ name, text: reader(column) }));

  function wireRuns(section) {
    const data = JSON.parse(document.getElementById("runs-data").textContent);
    const shown = columnsOf(data.shown);
    const every = columnsOf(data.all);
    const links = columnsOf(data.links);
    const idOf = every.find((column) => column.name === "run_id").text;
    const table = section.querySelector("table");
    const heads = all("th[data-column]", table);
    const pager = section.querySelector(".pager");
    const [previous, next] = all("button", pager);
    const order = Array.from({ length: data.count }, (_, run) => run);
    let fits = () => true;
    let kept = order;
    let first = 0;

    function linksOf(run) {
      const id = idOf(run);
      return links.flatMap(({ name, text }) => {
        const href = text(run).split(RUN_ID).join(id);
        return href !== BLANK ? [element("a", { href, ariaLabel: `${name} of ${id}` }, name)] : [];
      });
    }

    function row(run) {
      const made = element("tr");
      shown.forEach(({ name, text }, column) => {
        const cell = column ? element("td") : element("th", { scope: "row" });
        cell.className = heads[column].className;
        if (name === "run_id") {
          const button = element("button", { type: "button", ariaHasPopup: "dialog" }, text(run));
          button.addEventListener("click", () => details(run));
          cell.append(button);
        } else {
          cell.append(text(run));
        }
        made.append(cell);
      });
      made.append(element("td", { className: "t" }, ...linksOf(run)));
      return made;
    }

    function details(run) {
      const dialog = section.querySelector("dialog");
      dialog.querySelector("h3").textContent = `Run ${idOf(run)}`;
      const command = element("code", {}, `petl-bench show ${idOf(run)} --store ${data.store}`);
      dialog.querySelector("p").replaceChildren(...linksOf(run).flatMap((link) => [link, " "]), ...(data.store ? [command] : []));
      const pairs = every.flatMap(({ name, text }) => [element("dt", {}, name), element("dd", {}, text(run))]);
      dialog.querySelector("dl").replaceChildren(...pairs);
      dialog.showModal();
    }

    function draw() {
      const page = kept.slice(first, first + PAGE);
      table.tBodies[0].replaceChildren(...page.map(row));
      const range = page.length ? `${counted(first + 1)} to ${counted(first + page.length)}` : "none";
      pager.querySelector("span").textContent = `${range} of ${counted(kept.length)}`;
      // `disabled` would take the focus away from readers who page by keyboard.
      previous.setAttribute("aria-disabled", first === 0);
      next.setAttribute("aria-disabled", first + PAGE >= kept.length);
    }

    function turn(to) {
      if (to < 0 || to >= kept.length) return;
      first = to;
      draw();
      table.parentElement.scrollTop = 0;
    }

    function refresh() {
      kept = order.filter((run) => fits(run));
      first = 0;
      draw();
      return kept.length;
    }

    sortable(table, order, (run, column) => shown[column].text(run), refresh);
    filterable(section.querySelector(".filter"), data.count, shown, [...shown, ...every], (asked) => {
      fits = asked;
      return refresh();
    });
    previous.addEventListener("click", () => turn(first - PAGE));
    next.addEventListener("click", () => turn(first + PAGE));
    section.querySelector("dialog > button").addEventListener("click", (event) => event.target.parentElement.close());
    document.getElementById("runs-table").hidden = false;
  }

  for (const section of all(".tables")) wireTables(section);
  wireRuns(document.getElementById("runs"));
  document.getElementById("filter-hint").hidden = false;
})();
