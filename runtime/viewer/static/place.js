// What a link keeps, in the fragment of the URL: it never reaches the server's log or another site.
// Inputs are named by a key made of their folder, and the title of the page is
// always the same, so that no name of a slide is in the history.

const NUMBERS = ["x", "y", "z", "opacity"];

export function readPlace() {
  const given = new URLSearchParams(location.hash.slice(1));
  const place = { slide: given.get("slide"), off: new Set() };
  for (const name of NUMBERS) {
    const number = Number.parseFloat(given.get(name));
    if (Number.isFinite(number)) place[name] = number;
  }
  for (const label of (given.get("off") ?? "").split(",")) {
    if (/^\d+$/.test(label)) place.off.add(Number(label));
  }
  place.outlines = given.get("outlines") !== "0";
  return place;
}

// Whether it says where in the input, not just which input.
export function isWhole({ x, y, z }) {
  return x !== undefined && y !== undefined && z > 0;
}

export function writePlace(place, { isNew = false } = {}) {
  const parts = [`slide=${place.slide}`];
  if (isWhole(place)) parts.push(`x=${Math.round(place.x)}`, `y=${Math.round(place.y)}`, `z=${place.z.toPrecision(4)}`);
  if (place.off.size) parts.push(`off=${[...place.off].sort((a, b) => a - b).join(",")}`);
  parts.push(`opacity=${place.opacity}`);
  if (!place.outlines) parts.push("outlines=0");
  const fragment = `#${parts.join("&")}`;
  if (fragment === location.hash) return;
  if (isNew) history.pushState(null, "", fragment);
  else history.replaceState(null, "", fragment);
}
