/** The table of runs: which of them are chosen. */

import { onPage } from "./page.js";

onPage(() => {
  const boxes = [...document.querySelectorAll('input[name="run"]')];
  let last = null;
  for (const box of boxes) {
    box.addEventListener("click", (event) => {
      if (event.shiftKey && last) {
        const [from, to] = [boxes.indexOf(last), boxes.indexOf(box)].sort((a, b) => a - b);
        for (const between of boxes.slice(from, to + 1)) between.checked = box.checked;
      }
      last = box;
    });
  }
  document.querySelector("[data-compare-chosen]")?.addEventListener("click", () => {
    const chosen = boxes.filter((box) => box.checked).map((box) => ["run", box.value]);
    if (chosen.length) location.assign(`/compare?${new URLSearchParams(chosen)}`);
  });
});
