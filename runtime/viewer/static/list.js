// The list of inputs, and the search in it.

import { area, byId, element } from "./text.js";

export class List {
  constructor(choose) {
    this.choose = choose;
    this.inputs = [];
    this.notShown = [];
    this.current = null;
    this.search = byId("search");
    this.search.addEventListener("input", () => this.#filter());
    this.search.addEventListener("keydown", (event) => this.#searchKey(event));
  }

  // Whether the inputs are other ones than before.
  fill({ inputs, not_shown: notShown }) {
    const text = JSON.stringify([inputs, notShown]);
    if (text === this.text) return false;
    this.text = text;
    this.inputs = inputs;
    this.notShown = notShown;
    this.rows = [...inputs.map((input) => this.#row(input)), ...notShown.map(failedRow)];
    byId("list").replaceChildren(...this.rows.map(({ item }) => item));
    this.#filter();
    this.mark(this.current);
    return true;
  }

  mark(id) {
    this.current = id;
    for (const row of this.rows ?? []) {
      if (!row.button) continue;
      row.button.setAttribute("aria-current", String(row.input.id === id));
      if (row.input.id === id) row.button.scrollIntoView({ block: "nearest" });
    }
    const index = this.inputs.findIndex((input) => input.id === id);
    byId("count").textContent = `${index + 1} of ${this.inputs.length}`;
    byId("previous").disabled = index <= 0;
    byId("next").disabled = index < 0 || index >= this.inputs.length - 1;
  }

  step(by) {
    const index = this.inputs.findIndex((input) => input.id === this.current);
    const input = this.inputs[index + by];
    if (input) this.choose(input);
  }

  byKey(key) {
    return this.inputs.find((input) => input.key === key);
  }

  #row(input) {
    const parts = [];
    if (input.has_thumbnail) {
      parts.push(element("img", { src: `inputs/${input.id}/thumbnail?v=${input.version}`, alt: "", loading: "lazy" }));
    }
    const more = element("span", { className: "more" });
    const said = [];
    if (input.tissue_area_mm2 !== null) said.push(input.tissue_area_mm2 ? `${area(input.tissue_area_mm2)} tissue` : "no tissue");
    more.textContent = said.join(", ");
    if (input.warnings) {
      const text = input.warnings === 1 ? "1 warning" : `${input.warnings} warnings`;
      more.append(said.length ? " · " : "", element("span", { className: "warn", text }));
    }
    const name = element("span", { className: "name", text: input.name });
    parts.push(element("span", { className: "text" }, name, more));
    const button = element("button", { type: "button", title: `${input.folder}/${input.name}` }, ...parts);
    button.addEventListener("click", () => this.choose(input));
    return { item: element("li", {}, button), button, input, words: button.title.toLowerCase() };
  }

  #filter() {
    const words = this.search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let found = 0;
    for (const row of this.rows) {
      const matches = words.every((word) => row.words.includes(word));
      row.item.hidden = !matches;
      if (matches) found += 1;
    }
    const failed = this.notShown.length ? `, ${this.notShown.length} not shown` : "";
    const all = this.inputs.length === 1 ? "1 input" : `${this.inputs.length} inputs`;
    byId("list-note").textContent = words.length ? `${found} found` : `${all}${failed}`;
  }

  #searchKey(event) {
    if (event.key === "Escape") {
      this.search.value = "";
      this.#filter();
      this.search.blur();
    } else if (event.key === "Enter") {
      const first = this.rows.find((row) => row.button && !row.item.hidden);
      if (first) {
        this.choose(first.input);
        this.search.blur();
      }
    }
  }
}

function failedRow({ path, reason }) {
  const name = path.slice(Math.max(path.lastIndexOf("/"), path.lastIndexOf("\\")) + 1);
  const text = element("span", { className: "text" },
    element("span", { className: "name", text: name }),
    element("span", { className: "more", text: reason.startsWith(path) ? `It${reason.slice(path.length)}` : reason }));
  const item = element("li", { className: "failed", title: `${path}\n${reason}` }, text);
  return { item, words: path.toLowerCase() };
}
