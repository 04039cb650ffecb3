// The page: one input at a time, its place in the URL.

import { ask, ServerGone } from "./api.js";
import { listenToKeys } from "./keys.js";
import { List } from "./list.js";
import { Outlines } from "./outlines.js";
import { Panel } from "./panel.js";
import { Picture } from "./picture.js";
import { isWhole, readPlace, writePlace } from "./place.js";
import { Readout } from "./readout.js";
import { byId } from "./text.js";

const REFRESH_MS = 10_000;
const OPACITY = 45;

const picture = new Picture(byId("picture"));
const outlines = new Outlines(picture);
const readout = new Readout(picture);
const panel = new Panel(changed);
const list = new List((input) => open(input, {}, { isNew: true }));
outlines.shows = (label) => !panel.off.has(label);
let current = null; // the input that is shown, or being opened
let openings = 0;

async function open(input, place = {}, { isNew = false, note = "" } = {}) {
  const opening = ++openings; // what comes late changes nothing, were it of the same input
  current = input;
  delete document.body.dataset.open;
  list.mark(input.id);
  byId("name").textContent = input.name;
  byId("folder").textContent = input.folder;
  outlines.close();
  say(note);
  try {
    const detail = await ask(`inputs/${input.id}`);
    if (opening !== openings) return;
    panel.open(detail);
    await picture.open(detail, { shown: panel.shown, opacity: panel.opacity / 100 });
    if (opening !== openings) return;
    sayLacks(detail, note);
    if (isWhole(place)) picture.go(place);
    readout.open(detail);
    outlines.isOn = panel.outlines;
    outlines.open(detail);
    keepPlace({ isNew });
    document.body.dataset.open = input.id;
  } catch (error) {
    if (opening === openings) say(error.message, { isBad: true });
  }
}

function sayLacks({ picture: pixels, mask, kind }, note) {
  const what = kind === "patch" ? "image" : "slide";
  const isBad = Boolean(mask.lack && pixels.lack);
  let lacks = "";
  if (isBad) lacks = `Neither ${what} nor mask can be shown. ${pixels.lack}. ${mask.lack}.`;
  else if (pixels.lack) lacks = `The mask alone is shown: ${pixels.lack}.`;
  else if (mask.lack) lacks = `The ${what} alone is shown: ${mask.lack}.`;
  if (lacks) say(`${lacks} ${note}`.trim(), { isBad });
  byId("stage").classList.toggle("bare", Boolean(pixels.lack));
}

function say(text, { isBad = false } = {}) {
  const banner = byId("banner");
  banner.textContent = text;
  banner.hidden = !text;
  banner.classList.toggle("bad", isBad);
}

function changed(what) {
  if (!picture.detail) return;
  if (what === "classes") picture.showClasses(panel.shown);
  if (what === "opacity") picture.setOpacity(panel.opacity / 100);
  outlines.isOn = panel.outlines;
  outlines.update();
  keepPlace();
}

function keepPlace(how) {
  if (!picture.detail || current?.id !== picture.detail.id) return;
  const { off, opacity, outlines: isOn } = panel;
  writePlace({ slide: current.key, ...picture.place, off, opacity, outlines: isOn }, how);
}

function follow() {
  const place = readPlace();
  panel.off = place.off;
  panel.opacity = place.opacity ?? OPACITY;
  panel.outlines = place.outlines;
  const linked = list.byKey(place.slide);
  const note = place.slide && !linked ? "The link's input is not among these results." : "";
  const input = linked ?? list.inputs[0];
  if (input) open(input, note ? {} : place, { note });
  else say(note);
}

async function refresh() {
  if (document.hidden) return;
  try {
    if (!list.fill(await ask("inputs"))) return;
    const now = list.inputs.find((input) => input.id === current?.id);
    if (now && now.version !== current.version) open(now, picture.place);
  } catch (error) {
    if (error instanceof ServerGone) say(error.message, { isBad: true });
  }
}

picture.on("update-viewport", () => {
  readout.drawScale();
  outlines.draw();
});
picture.on("animation-finish", () => {
  outlines.update();
  keepPlace();
});
picture.on("resize", () => outlines.update());
picture.on("tile-load-failed", ({ maxReached: isLast }) => {
  if (isLast) say("Some of the picture cannot be read.");
});
byId("copy").addEventListener("click", async () => {
  keepPlace();
  try {
    await navigator.clipboard.writeText(location.href);
  } catch {
    say("The browser does not let the link be copied: copy it from the address bar.");
    return;
  }
  byId("copy").textContent = "Copied";
  setTimeout(() => (byId("copy").textContent = "Copy link"), 1500);
});
byId("list-toggle").addEventListener("click", () => {
  const isHidden = document.body.classList.toggle("no-list");
  byId("list-toggle").setAttribute("aria-expanded", String(!isHidden));
});
if (matchMedia("(max-width: 62rem)").matches) byId("list-toggle").click();
listenToKeys({ picture, panel, list });
try {
  list.fill(await ask("inputs"));
  follow();
} catch (error) {
  say(error.message, { isBad: true });
}
window.addEventListener("popstate", follow); // after the list is there: links are looked up in it
setInterval(refresh, REFRESH_MS);
