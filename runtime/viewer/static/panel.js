// Classes with their shares and areas, the mask's settings, warnings and facts.

import { area, byId, element, lengths, percent } from "./text.js";

export class Panel {
  constructor(changed) {
    this.changed = changed; // called with what changed: "classes", "opacity", "outlines"
    this.off = new Set();
    this.detail = null;
    byId("opacity").addEventListener("input", () => this.#sayOpacity("opacity"));
    byId("show-outlines").addEventListener("change", () => changed("outlines"));
  }

  get opacity() {
    return Number(byId("opacity").value);
  }

  set opacity(value) {
    byId("opacity").value = value;
    this.#sayOpacity();
  }

  get outlines() {
    return byId("show-outlines").checked;
  }

  set outlines(isOn) {
    byId("show-outlines").checked = isOn;
  }

  // Bits of the classes that are shown, for the server.
  get shown() {
    let bits = 0n;
    for (const { label } of this.detail.classes) if (!this.off.has(label)) bits |= 1n << BigInt(label);
    return bits;
  }

  open(detail) {
    this.detail = detail;
    byId("classes").replaceChildren(...detail.classes.map((c, index) => this.#classRow(c, index)));
    byId("tissue").lastElementChild.textContent = area(detail.tissue_area_mm2);
    byId("tissue").hidden = detail.tissue_area_mm2 === null;
    byId("warnings").hidden = !detail.warnings_text.length;
    byId("warnings").lastElementChild.replaceChildren(
      ...detail.warnings_text.map((text) => element("li", { text })));
    const [w, h] = detail.size_px;
    const facts = [["Size", `${w.toLocaleString("en")} × ${h.toLocaleString("en")} px`]];
    if (detail.mpp_um) {
      const [x, y] = detail.mpp_um;
      facts.push(["", lengths(w * x, h * y)]);
    }
    byId("show-outlines").closest("label").hidden = detail.regions === null;
    if (detail.regions !== null) facts.push(["Regions", detail.regions.toLocaleString("en")]);
    facts.push(...detail.facts);
    byId("facts").replaceChildren(
      ...facts.flatMap(([name, text]) => [element("dt", { text: name }), element("dd", { text })]));
  }

  toggleClass(index) {
    const box = byId("classes").querySelectorAll("input")[index];
    if (box) box.click();
  }

  toggleMask() {
    const labels = this.detail.classes.map((c) => c.label);
    const isOff = labels.every((label) => this.off.has(label));
    this.off = new Set(isOff ? [] : labels);
    for (const box of byId("classes").querySelectorAll("input")) {
      box.checked = isOff;
      box.closest(".class").classList.toggle("off", !isOff);
    }
    this.changed("classes");
  }

  changeOpacity(by) {
    this.opacity = Math.min(100, Math.max(0, this.opacity + by));
    this.changed("opacity");
  }

  toggleOutlines() {
    byId("show-outlines").click();
  }

  #sayOpacity(change) {
    byId("opacity-text").textContent = `${this.opacity} %`;
    if (change) this.changed(change);
  }

  #classRow({ label, name, share, area_mm2: mm2, color }, index) {
    const box = element("input", { type: "checkbox", checked: !this.off.has(label) });
    const swatch = element("i", { className: "swatch" });
    const fill = element("i");
    swatch.style.background = color;
    fill.style.background = color;
    fill.style.width = `${100 * share}%`;
    const row = element("label", { className: "class", title: index < 9 ? `Key ${index + 1}` : "" },
      box, swatch,
      element("span", { className: "name", text: name }),
      element("span", { className: "share", text: percent(share) }),
      element("span", { className: "bar" }, fill),
      element("span", { className: "area", text: area(mm2) }));
    row.classList.toggle("off", !box.checked);
    box.addEventListener("change", () => {
      if (box.checked) this.off.delete(label);
      else this.off.add(label);
      row.classList.toggle("off", !box.checked);
      this.changed("classes");
    });
    return row;
  }
}
