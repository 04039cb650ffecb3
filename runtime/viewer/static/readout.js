// Scale bar, and what is under the pointer.

import { ask } from "./api.js";
import { byId, digits, element, length } from "./text.js";

const MAX_BAR_PX = 150;
const ASK_MS = 90;

export class Readout {
  constructor(picture) {
    this.picture = picture;
    this.detail = null;
    this.timer = 0;
    this.asked = 0;
    const stage = byId("stage");
    stage.addEventListener("pointermove", (event) => this.#moved(event));
    stage.addEventListener("pointerleave", () => this.clear());
  }

  open(detail) {
    this.detail = detail;
    this.clear();
    this.drawScale();
  }

  clear() {
    clearTimeout(this.timer);
    this.asked += 1;
    byId("point").replaceChildren(
      element("span", { className: "pale", text: "Point at the slide to see its class" }));
    byId("place").textContent = "";
  }

  drawScale() {
    if (!this.detail) return;
    const um = this.detail.mpp_um?.[0];
    const perPx = (um ?? 1) / this.picture.place.z;
    const room = perPx * MAX_BAR_PX;
    const decade = 10 ** Math.floor(Math.log10(room));
    const nice = [5, 2, 1].map((n) => n * decade).find((n) => n <= room);
    byId("scale-bar").style.width = `${nice / perPx}px`;
    byId("scale-text").textContent = um ? length(nice) : `${digits(nice)} px`;
  }

  #moved(event) {
    if (!this.detail) return;
    const stage = byId("stage").getBoundingClientRect();
    const { x, y } = this.picture.toSlide(event.clientX - stage.left, event.clientY - stage.top);
    const [w, h] = this.detail.size_px;
    if (x < 0 || y < 0 || x >= w || y >= h) {
      this.clear();
      return;
    }
    const mpp = this.detail.mpp_um;
    byId("place").textContent = mpp
      ? `x ${length(x * mpp[0])}, y ${length(y * mpp[1])}`
      : `x ${Math.floor(x)}, y ${Math.floor(y)} px`;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.#ask(x, y), ASK_MS);
  }

  async #ask(x, y) {
    const asked = ++this.asked;
    const { id } = this.detail;
    const said = [];
    try {
      const point = await ask(`inputs/${id}/point?x=${x.toFixed(1)}&y=${y.toFixed(1)}`);
      if (asked !== this.asked) return;
      if (point.label === null) said.push(element("span", { className: "pale", text: "no mask here" }));
      else said.push(...this.#words(point));
    } catch {
      return; // the next tile or question says what is wrong
    }
    byId("point").replaceChildren(...said);
  }

  #words({ label, name, probability, of }) {
    const known = this.detail.classes.find((c) => c.label === label);
    if (!known) return [element("span", { className: "pale", text: name })];
    const swatch = element("i", { className: "swatch" });
    swatch.style.background = known.color;
    const words = [swatch, element("strong", { text: name })];
    if (probability !== undefined) {
      const where = of === "here" ? "probability" : "mean probability of the region";
      words.push(element("span", { text: `${where} ${probability.toFixed(2)}` }));
    }
    return words;
  }
}
