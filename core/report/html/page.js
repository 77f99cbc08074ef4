// Lists that sort and filter, and what leads from them into the viewer.
const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const caseRows = new Map(all("#cases tbody tr").map(row => [row.dataset.case, row]));

const lesionOf = (row) => {
  const { z, y, x, first, last, mm, title, is } = row.dataset, facts = FACTS[row.dataset.case];
  if (row.lesion || !z || !facts) return row.lesion || null;
  const radius = mm && facts.trusted ? mm / 2 / facts.mm[2] : 6;
  row.lesion = { z: +z, y: +y, x: +x, first: first ? +first : +z, last: last ? +last : +z, radius, title, kind: is,
    label: `${is} ${mm ? `${(+mm).toFixed(0)} mm` : `at ${z}`}` };
  return row.lesion;
};
const lesionRows = all("#lesions tbody tr");
const byCase = new Map();
for (const row of lesionRows) {
  if (!byCase.has(row.dataset.case)) byCase.set(row.dataset.case, []);
  byCase.get(row.dataset.case).push(row);
}
const lesionsOf = index => (byCase.get(String(index)) || []).map(lesionOf).filter(Boolean);

const viewers = all(".viewer").map(root => new Viewer(root, lesionsOf));
const main = viewers.find(viewer => viewer.root.dataset.main);
viewers.filter(viewer => viewer !== main).forEach(viewer => viewer.show(viewer.root.dataset.case));

// A list: its rows, a search, choices (data-kinds of a row has the choice's value), a count.
const makeList = (table, bar) => {
  const body = table.tBodies[0], rows = [...body.rows], heads = all("th", table.tHead);
  const search = bar.querySelector("input"), choices = all("select", bar), count = bar.querySelector("output");
  const words = new Map(rows.map(row => [row, row.textContent.toLowerCase()]));
  const filter = () => {
    const asked = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of rows) {
      const kinds = row.dataset.kinds.split(" ");
      row.hidden = !(asked.every(word => words.get(row).includes(word)) && choices.every(c => !c.value || kinds.includes(c.value)));
      shown += !row.hidden;
    }
    count.textContent = `${shown} of ${rows.length}`;
  };
  const sort = (head) => {
    const column = heads.indexOf(head), up = head.getAttribute("aria-sort") !== "ascending", sense = up ? 1 : -1;
    heads.forEach(other => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const value = new Map(rows.map(row => [row, row.cells[column].dataset.value]));
    const numeric = !head.classList.contains("text");
    rows.sort((a, b) => {
      const x = value.get(a), y = value.get(b);
      if (x === "" || y === "") return (x === "") - (y === "");
      return sense * (numeric ? Number(x) - Number(y) : x.localeCompare(y, "en", { numeric: true }));
    });
    body.append(...rows);
  };
  const clear = () => { search.value = ""; choices.forEach(c => { c.value = ""; }); filter(); };
  heads.forEach(head => head.querySelector("button").addEventListener("click", () => sort(head)));
  search.addEventListener("input", filter);
  choices.forEach(choice => choice.addEventListener("change", filter));
  bar.querySelector("[data-clear]").addEventListener("click", clear);
  filter();
  return { rows: () => rows, clear, search };
};
const lists = all("table.list").map(table => makeList(table, document.getElementById(table.dataset.bar)));
const lesionList = lists.find(list => list.rows()[0]?.closest("#lesions"));

let here = null;
const jump = (row, focus) => {
  if (!main || !row || !FACTS[row.dataset.case]) return;
  here?.classList.remove("here");
  here?.removeAttribute("aria-current");
  here = row;
  row.classList.add("here");
  row.setAttribute("aria-current", "true");
  if (row.closest("#lesions") && lesionList.rows().includes(row)) {
    const box = row.closest(".wide"), top = row.offsetTop - box.clientHeight / 2;
    if (row.offsetTop < box.scrollTop + 60 || row.offsetTop > box.scrollTop + box.clientHeight - 40) box.scrollTop = top;
  }
  main.show(row.dataset.case, row.closest("#lesions") ? lesionOf(row) : null);
  const place = main.root.getBoundingClientRect();
  if (place.top < 0 || place.top > innerHeight / 2) main.root.scrollIntoView({ block: "start" });
  if (focus) main.screen.focus({ preventScroll: true });
};
const step = (by) => {
  if (!lesionList) return;
  const seen = lesionList.rows().filter(row => !row.hidden && FACTS[row.dataset.case]), at = seen.indexOf(here);
  jump(seen[at < 0 ? 0 : Math.max(0, Math.min(seen.length - 1, at + by))], true);
};
document.addEventListener("click", event => {
  const link = event.target.closest("a[data-jump]");
  if (!link) return;
  event.preventDefault();
  jump(link.closest("tr"), true);
});
all("[data-large]").forEach(button => button.addEventListener("click", () => {
  const viewer = viewers.find(one => one.root === button.closest(".viewer"));
  jump(caseRows.get(String(viewer.index)), true);
}));
all("[data-step]").forEach(button => button.addEventListener("click", () => step(Number(button.dataset.step))));

const first = lesionRows.find(row => FACTS[row.dataset.case] && lesionOf(row));
const start = first || [...caseRows.values()].find(row => FACTS[row.dataset.case]);
if (main && start) {
  here = start;
  start.classList.add("here");
  start.setAttribute("aria-current", "true");
  main.show(start.dataset.case, first ? lesionOf(first) : null);
}

document.getElementById("theme").addEventListener("click", () => {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
});
document.addEventListener("keydown", event => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "Escape") { lists.forEach(list => list.clear()); document.activeElement.blur(); return; }
  if (/^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName) && event.target.type !== "range") return;
  const go = id => () => { const part = document.getElementById(id); part?.scrollIntoView(); part?.focus({ preventScroll: true }); };
  const done = {
    n: () => step(1), p: () => step(-1), c: go("cases-part"), l: go("viewer-part"),
    "/": () => (lesionList || lists[0])?.search.focus(),
    v: () => { main?.root.scrollIntoView(); main?.screen.focus({ preventScroll: true }); },
  }[event.key];
  if (done) { event.preventDefault(); done(); }
});
let opened = [];
addEventListener("beforeprint", () => {
  opened = all("details:not([open])").filter(part => !part.classList.contains("numbers"));
  opened.forEach(part => { part.open = true; });
});
addEventListener("afterprint", () => opened.forEach(part => { part.open = false; }));
