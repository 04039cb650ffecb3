// Numbers and elements as the page shows them.

// Three significant digits, never an exponent.
export function digits(number) {
  if (number === 0) return "0";
  if (Math.abs(number) >= 100) return Math.round(number).toLocaleString("en");
  return Number(number.toPrecision(3)).toString();
}

export function percent(share) {
  const value = 100 * share;
  return value > 0 && value < 0.1 ? "< 0.1 %" : `${value.toFixed(1)} %`;
}

export function area(mm2) {
  if (mm2 === null) return "";
  return mm2 > 0 && mm2 < 0.01 ? `${digits(mm2 * 1e6)} µm²` : `${digits(mm2)} mm²`;
}

export function length(um) {
  return um >= 1000 ? `${digits(um / 1000)} mm` : `${digits(um)} µm`;
}

export function lengths(um, otherUm) {
  const isMm = Math.max(um, otherUm) >= 1000;
  const [a, b] = [um, otherUm].map((one) => digits(isMm ? one / 1000 : one));
  return `${a} × ${b} ${isMm ? "mm" : "µm"}`;
}

// An element with text, never with markup: names of files may hold anything.
export function element(tag, { text, ...properties } = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  if (text !== undefined) made.textContent = text;
  made.append(...children);
  return made;
}

export const byId = (id) => document.getElementById(id);
