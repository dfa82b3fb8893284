"use strict";
// Sorts, filters and pages. Without it every summary table can be read as it stands; only the runs need it.
(() => {
  const HOLE = "-";
  const RUN_ID = "{}";
  const PAGE = 100; // rows drawn at once: 100,000 rows in one table would stop any browser
  const PAUSE = 120; // ms after a key before filtering, so that counts are announced once a word

  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const counted = (number) => number.toLocaleString("en-US");

  // Text is always given as text, never as HTML: names are as people chose them.
  function element(name, properties = {}, ...children) {
    const made = Object.assign(document.createElement(name), properties);
    made.append(...children);
    return made;
  }

  // `83.1 ± 0.4`, `1,088`, `5/5` by the number they begin with; NaN for words. As in page.py.
  function numberOf(text) {
    const found = /^([+-]?[\d,]*\.?\d+(e[+-]?\d+)?)($|[\s/%†-])/i.exec(text);
    return found ? Number(found[1].replaceAll(",", "")) : NaN;
  }

  // Sorts lines in place by one column, holes last in both directions. Equal lines stay as they were, so that
  // sorting by one column and then another sorts by both.
  function sort(lines, textOf, direction) {
    const texts = [];
    for (const line of lines) texts[line] = textOf(line);
    const hole = texts.map((text) => text === "" || text === HOLE);
    const numbers = texts.map(numberOf);
    const numeric = numbers.every((number, line) => hole[line] || !Number.isNaN(number));
    const keys = numeric ? numbers : texts.map((text) => text.toLowerCase());
    lines.sort((a, b) => {
      if (hole[a] || hole[b]) return hole[a] - hole[b];
      return direction * (keys[a] < keys[b] ? -1 : keys[a] > keys[b] ? 1 : 0);
    });
  }

  // Turns the heads of a table into buttons that sort its lines. They are made here, as they do nothing without it.
  function sortable(table, lines, textOf, changed) {
    const heads = all("th[data-column]", table);
    for (const head of heads) {
      const button = element("button", { type: "button" }, ...head.childNodes);
      button.addEventListener("click", () => {
        const direction = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
        for (const other of heads) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", direction > 0 ? "ascending" : "descending");
        const column = Number(head.dataset.column);
        sort(lines, (line) => textOf(line, column), direction);
        changed();
      });
      head.append(button);
    }
  }

  // Column names as one can type them without a space: `mean of groups` is mean_of_groups.
  const plain = (name) => name.toLowerCase().replace(/[^\p{L}\p{N}]+/gu, "_").replace(/^_|_$/g, "");

  // `1.0` is 1 and `83.1` is `83.1 ± 0.4`, as in --filter.
  function same(text, value) {
    if (text.toLowerCase() === value) return true;
    const number = Number(value.replaceAll(",", ""));
    return number === Number(text.split(" ± ")[0].replaceAll(",", "")) && text !== "";
  }

  // What a query asks of a line. `columns` have a name and text(line); the words are looked for in `words(line)`.
  function parse(query, columns, words) {
    const tests = [];
    const unknown = [];
    for (const word of query.toLowerCase().match(/(?:"[^"]*"?|[^\s"])+/g) ?? []) {
      const bare = word.replaceAll('"', "");
      const at = word.startsWith('"') ? -1 : bare.indexOf("=");
      if (at < 1) {
        tests.push((line) => words(line).includes(bare));
        continue;
      }
      const name = bare.slice(0, at);
      const value = bare.slice(at + 1);
      const asked = columns.filter((column) => plain(column.name) === plain(name));
      if (!asked.length) unknown.push(name);
      if (value) tests.push((line) => asked.some((column) => same(column.text(line), value)));
    }
    return { fits: (line) => tests.every((test) => test(line)), unknown };
  }

  // Wires a filter box. `changed(fits)` shows the lines that fit and returns how many these are.
  function filterable(box, count, shown, columns, changed) {
    const input = box.querySelector("input");
    const output = box.querySelector("output");
    const cache = [];
    const words = (line) => (cache[line] ??= shown.map((column) => column.text(line)).join("\n").toLowerCase());
    function apply() {
      const { fits, unknown } = parse(input.value, columns, words);
      const kept = changed(fits);
      const names = [...new Set(shown.map((column) => column.name))].join(", ");
      const problem = unknown.map((name) => `; no column “${name}” (there are: ${names})`).join("");
      output.textContent = `${counted(kept)} of ${counted(count)} lines${problem}`;
    }
    let timer = 0;
    input.addEventListener("input", () => {
      clearTimeout(timer);
      timer = setTimeout(apply, PAUSE);
    });
    box.hidden = false;
    apply(); // a browser may have kept the words of an earlier visit
  }

  // The summary tables of a section have the same lines: one filter hides a line in all of them.
  function wireTables(section) {
    const tables = all("table.data", section);
    const rows = tables.map((table) => [...table.tBodies[0].rows]);
    // Not the words for screen readers, as `best`.
    const textOf = (cell) =>
      [...cell.childNodes].map((node) => (node.className === "sr" ? "" : node.textContent)).join("");
    const texts = rows.map((body) => body.map((row) => [...row.cells].map(textOf)));
    const columns = tables.flatMap((table, number) =>
      all("th[data-column]", table)
        .map((head) => [Number(head.dataset.column), head.textContent])
        .sort((a, b) => a[0] - b[0]) // the heads of two rows are not in the order of columns
        .map(([column, name]) => ({ name, text: (line) => texts[number][line][column] })),
    );
    tables.forEach((table, number) => {
      const lines = [...rows[number].keys()];
      const draw = () => table.tBodies[0].append(...lines.map((line) => rows[number][line]));
      sortable(table, lines, (line, column) => texts[number][line][column], draw);
    });
    const box = section.querySelector(".filter");
    if (!box) return;
    const count = rows[0].length;
    filterable(box, count, columns, columns, (fits) => {
      const kept = rows[0].map((_, line) => fits(line));
      for (const body of rows) body.forEach((row, line) => (row.hidden = !kept[line]));
      return kept.filter(Boolean).length;
    });
  }

  // Columns are kept as `_coded` in page.py says: values, or different values and which of them a row has.
  function reader({ v, i }) {
    const value = i ? (line) => v[i[line]] : v.length === 1 ? () => v[0] : (line) => v[line];
    return (line) => String(value(line) ?? "") || HOLE;
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
    const lines = Array.from({ length: data.count }, (_, line) => line);
    let fits = () => true;
    let kept = lines;
    let first = 0;

    function linksOf(line) {
      const id = idOf(line);
      return links.flatMap(({ name, text }) => {
        const href = text(line).split(RUN_ID).join(id);
        return href !== HOLE ? [element("a", { href, ariaLabel: `${name} of ${id}` }, name)] : [];
      });
    }

    function row(line) {
      const made = element("tr");
      shown.forEach(({ name, text }, column) => {
        const cell = column ? element("td") : element("th", { scope: "row" });
        cell.className = heads[column].className;
        if (name === "run_id") {
          const button = element("button", { type: "button", ariaHasPopup: "dialog" }, text(line));
          button.addEventListener("click", () => details(line));
          cell.append(button);
        } else {
          cell.append(text(line));
        }
        made.append(cell);
      });
      made.append(element("td", { className: "t" }, ...linksOf(line)));
      return made;
    }

    function details(line) {
      const dialog = section.querySelector("dialog");
      dialog.querySelector("h3").textContent = `Run ${idOf(line)}`;
      dialog.querySelector("p").replaceChildren(...linksOf(line).flatMap((link) => [link, " "]));
      const pairs = every.flatMap(({ name, text }) => [element("dt", {}, name), element("dd", {}, text(line))]);
      dialog.querySelector("dl").replaceChildren(...pairs);
      dialog.showModal();
    }

    function draw() {
      const page = kept.slice(first, first + PAGE);
      table.tBodies[0].replaceChildren(...page.map(row));
      const range = page.length ? `${counted(first + 1)} to ${counted(first + page.length)}` : "none";
      pager.querySelector("span").textContent = `${range} of ${counted(kept.length)}`;
      // Not `disabled`, which would take the focus from who pages by keyboard.
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
      kept = lines.filter((line) => fits(line));
      first = 0;
      draw();
      return kept.length;
    }

    sortable(table, lines, (line, column) => shown[column].text(line), refresh);
    filterable(section.querySelector(".filter"), data.count, shown, [...shown, ...every], (asked) => {
      fits = asked;
      return refresh();
    });
    previous.addEventListener("click", () => turn(first - PAGE));
    next.addEventListener("click", () => turn(first + PAGE));
    section.querySelector("dialog > button").addEventListener("click", (event) => event.target.parentElement.close());
    document.getElementById("runs-table").hidden = false;
  }

  for (const section of all(".lines")) wireTables(section);
  wireRuns(document.getElementById("runs"));
  document.getElementById("filter-hint").hidden = false;
})();
