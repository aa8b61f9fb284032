// Sorting by a click on a column's head; the page is complete without it. Heads with data-sort say which columns sort,
// and whether up, down or as text first; in a table without them, all do. Rows without a value stay last.
{
  const valued = (cell) => {
    const text = "v" in cell.dataset ? cell.dataset.v : cell.textContent.trim();
    return ["", "–", "-"].includes(text) ? null : text;
  };
  const sortable = (table) => {
    const [body] = table.tBodies, heads = [...(table.tHead?.rows[0].cells || [])];
    if (!body || body.rows.length < 3 || table.matches(".matrix")) return;
    const chosen = heads.filter((head) => "sort" in head.dataset);
    for (const head of chosen.length ? chosen : heads) {
      const column = head.cellIndex, cells = [...body.rows].map((row) => row.cells[column]);
      if (cells.some((cell) => !cell)) continue;
      const numbers = head.dataset.sort !== "text" && cells.some((cell) => "v" in cell.dataset && valued(cell) !== null);
      const button = document.createElement("button");
      button.type = "button";
      button.className = "sort";
      button.append(...head.childNodes);
      head.append(button);
      const first = head.dataset.sort === "down" ? "descending" : "ascending";
      const compare = (x, y) => (numbers ? x - y : x.localeCompare(y, "en", { numeric: true }));
      button.addEventListener("click", () => {
        const was = head.getAttribute("aria-sort");
        const order = was === "ascending" ? "descending" : was === "descending" ? "ascending" : first;
        for (const other of heads) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", order);
        const number = (text) => (numbers && text !== null && Number.isNaN(Number(text)) ? null : text);
        const rows = [...body.rows].map((row) => [number(valued(row.cells[column])), row]);
        rows.sort(([x], [y]) => {
          if (x === null || y === null) return (x === null) - (y === null);
          return order === "ascending" ? compare(x, y) : compare(y, x);
        });
        body.append(...rows.map(([, row]) => row));
      });
    }
  };
  for (const table of document.querySelectorAll("table")) sortable(table);
  // The first screen's table comes in the order of its score.
  const score = document.querySelector("table.main th.sc[data-sort]");
  if (score?.querySelector("button") && !score.closest("tr").querySelector("[aria-sort]"))
    score.setAttribute("aria-sort", score.dataset.sort === "down" ? "descending" : "ascending");
}
// The contents mark the section in view.
if ("IntersectionObserver" in window) {
  const links = new Map([...document.querySelectorAll("nav a")].map((a) => [a.hash.slice(1), a]));
  const seen = new IntersectionObserver(
    (entries) => {
      for (const entry of entries) {
        if (!entry.isIntersecting) continue;
        for (const link of links.values()) link.removeAttribute("aria-current");
        links.get(entry.target.id)?.setAttribute("aria-current", "true");
      }
    },
    { rootMargin: "-10% 0px -80% 0px" },
  );
  for (const section of document.querySelectorAll("main > section")) seen.observe(section);
}
