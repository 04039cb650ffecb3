// Every key, in one place; the dialog of index.html lists them.

import { byId } from "./text.js";

const STEP = 0.2; // of the view

export function listenToKeys({ picture, panel, list }) {
  const dialog = byId("keys");
  const actions = {
    ArrowLeft: () => picture.moveBy(-STEP, 0),
    ArrowRight: () => picture.moveBy(STEP, 0),
    ArrowUp: () => picture.moveBy(0, -STEP),
    ArrowDown: () => picture.moveBy(0, STEP),
    "+": () => picture.zoomBy(1.5),
    "=": () => picture.zoomBy(1.5),
    "-": () => picture.zoomBy(1 / 1.5),
    0: () => picture.whole(),
    n: () => list.step(1),
    p: () => list.step(-1),
    m: () => panel.toggleMask(),
    o: () => panel.toggleOutlines(),
    "[": () => panel.changeOpacity(-10),
    "]": () => panel.changeOpacity(10),
    "/": () => {
      document.body.classList.remove("no-list");
      byId("search").select();
    },
    "?": () => dialog.showModal(),
  };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || dialog.open) return;
    if (event.target.matches("input:not([type=checkbox])")) return;
    const action = /^[1-9]$/.test(event.key)
      ? () => panel.toggleClass(Number(event.key) - 1)
      : actions[event.key];
    if (!action || (!picture.detail && !"/?np".includes(event.key))) return;
    event.preventDefault();
    action();
  });
  byId("help").addEventListener("click", actions["?"]);
  byId("zoom-in").addEventListener("click", actions["+"]);
  byId("zoom-out").addEventListener("click", actions["-"]);
  byId("whole").addEventListener("click", actions["0"]);
  byId("next").addEventListener("click", actions.n);
  byId("previous").addEventListener("click", actions.p);
}
