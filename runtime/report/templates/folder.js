"use strict";
(() => {
  const table = document.querySelector("table.results");
  if (!table) return;
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const filter = document.getElementById("filter");
  const warned = document.getElementById("warned");
  const found = document.getElementById("found");
  const texts = new Map();
  const collator = new Intl.Collator(undefined, { numeric: true });

  const isNumber = (header) => header.classList.contains("number");
  const compare = (one, other, header) =>
    isNumber(header) ? Number(one) - Number(other) : collator.compare(one, other);

  const sort = (header) => {
    const column = header.cellIndex;
    const first = isNumber(header) || column === table.tHead.rows[0].cells.length - 1;
    const before = header.ariaSort;
    const order =
      before === "none" ? (first ? "descending" : "ascending")
      : before === "ascending" ? "descending" : "ascending";
    for (const other of table.tHead.querySelectorAll("th")) other.ariaSort = "none";
    header.ariaSort = order;
    const sign = order === "ascending" ? 1 : -1;
    const keyed = rows.map((row, index) => [row.cells[column].dataset.v, index, row]);
    keyed.sort(([a, i], [b, j]) =>
      a === "" || b === "" ? (a === "") - (b === "") || i - j
      : sign * compare(a, b, header) || i - j);
    body.append(...keyed.map(([, , row]) => row));
  };

  const show = () => {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    const onlyWarned = warned?.ariaPressed === "true";
    let count = 0;
    for (const row of rows) {
      const text = texts.get(row) ?? row.textContent.toLowerCase();
      texts.set(row, text);
      row.hidden = !words.every((word) => text.includes(word)) ||
        (onlyWarned && !row.querySelector(".chip"));
      count += !row.hidden;
    }
    found.textContent = count === rows.length ? "" : `${count} of ${rows.length}`;
  };

  const step = (by) => {
    const shown = [...body.rows].filter((row) => !row.hidden);
    const at = shown.findIndex((row) => row.contains(document.activeElement));
    const next = at < 0 ? (by > 0 ? 0 : shown.length - 1) : at + by;
    const link = shown[next]?.querySelector("th a");
    link?.focus({ preventScroll: true });
    link?.closest("tr").scrollIntoView({ block: "nearest" });
  };

  for (const header of table.tHead.querySelectorAll("th"))
    header.querySelector("button").addEventListener("click", () => sort(header));
  filter.addEventListener("input", show);
  warned?.addEventListener("click", () => {
    warned.ariaPressed = String(warned.ariaPressed !== "true");
    show();
  });
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target === filter) {
      if (event.key === "Escape") {
        filter.value = "";
        show();
        filter.blur();
      } else if (event.key === "ArrowDown" || event.key === "Enter") {
        event.preventDefault();
        filter.blur();
        step(1);
      }
      return;
    }
    const act = { "/": () => filter.focus(), j: () => step(1), k: () => step(-1) }[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  });
  addEventListener("beforeprint", () => {
    for (const picture of body.querySelectorAll("img")) picture.loading = "eager";
  });
  show();
})();
