// Outlines of regions, drawn over the picture when single regions can be told apart.

import { ask } from "./api.js";
import { byId } from "./text.js";

const MAX_UM_PER_PX = 2.5; // on screen
const MARGIN = 0.5; // of the view on each side, so that small moves ask for nothing

export class Outlines {
  constructor(picture) {
    this.picture = picture;
    this.canvas = byId("outlines");
    this.note = byId("outlines-note");
    this.isOn = true;
    this.close();
  }

  close() {
    this.detail = null;
    this.box = null;
    this.lines = [];
    this.asked = 0;
    this.note.textContent = "";
    this.draw();
  }

  open(detail) {
    this.close();
    this.detail = detail.regions ? detail : null;
    this.update();
  }

  // Asks for what the view shows, if it is not there yet.
  async update() {
    this.draw();
    if (!this.isOn || !this.detail) return;
    if (!this.isNear) {
      this.note.textContent = "Zoom in to see them.";
      return;
    }
    const view = this.picture.box;
    if (this.box && contains(this.box, view)) return; // there, or on its way
    const [w, h] = [(view.x1 - view.x0) * MARGIN, (view.y1 - view.y0) * MARGIN];
    const box = { x0: view.x0 - w, y0: view.y0 - h, x1: view.x1 + w, y1: view.y1 + h };
    const asked = ++this.asked;
    this.box = box;
    this.note.textContent = "Reading …";
    const query = Object.entries(box).map(([k, v]) => `${k}=${v.toFixed(1)}`).join("&");
    try {
      const answer = await ask(`inputs/${this.detail.id}/regions?${query}`);
      if (asked !== this.asked) return;
      this.lines = answer.lines.map(({ label, corners }) => ({ label, path: pathOf(corners) }));
      this.note.textContent = noteOf(answer);
      this.draw();
    } catch (error) {
      if (asked !== this.asked) return;
      this.box = null;
      this.note.textContent = error.message;
    }
  }

  get isNear() {
    const um = this.detail.mpp_um ? this.detail.mpp_um[0] : 1;
    return um / this.picture.place.z <= MAX_UM_PER_PX;
  }

  draw() {
    const { canvas } = this;
    const ratio = devicePixelRatio || 1;
    const [w, h] = [Math.round(canvas.clientWidth * ratio), Math.round(canvas.clientHeight * ratio)];
    if (canvas.width !== w || canvas.height !== h) Object.assign(canvas, { width: w, height: h });
    const context = canvas.getContext("2d");
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, w, h);
    const isDrawn = this.isOn && this.detail && this.lines.length && this.isNear;
    canvas.dataset.lines = isDrawn ? this.lines.length : 0;
    if (!isDrawn) return;
    const { x0, y0 } = this.picture.box;
    const { z } = this.picture.place;
    context.setTransform(ratio * z, 0, 0, ratio * z, -x0 * z * ratio, -y0 * z * ratio);
    context.lineJoin = "round";
    for (const [color, width] of [["rgb(255 255 255 / 0.85)", 3.4], [null, 1.8]]) {
      context.lineWidth = width / z;
      for (const { label, path } of this.lines) {
        if (!this.shows(label)) continue;
        context.strokeStyle = color ?? this.detail.classes[label]?.color ?? "#808080";
        context.stroke(path);
      }
    }
  }
}

function noteOf({ complete, left_out: leftOut }) {
  if (!complete) return "Too many to show all: zoom in further.";
  if (!leftOut) return "";
  return leftOut === 1 ? "One region is too large to be drawn." : `${leftOut} regions are too large to be drawn.`;
}

function contains(outer, inner) {
  return outer.x0 <= inner.x0 && outer.y0 <= inner.y0 && outer.x1 >= inner.x1 && outer.y1 >= inner.y1;
}

function pathOf(corners) {
  const path = new Path2D();
  path.moveTo(corners[0], corners[1]);
  for (let i = 2; i < corners.length; i += 2) path.lineTo(corners[i], corners[i + 1]);
  return path;
}
