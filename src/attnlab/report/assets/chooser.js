/** Which arms of a section are chosen: in its legend, its table and all of its charts. */

/** Return what chooses arms of an element: anything in it with `data-arm` is an arm. */
export function buildChooser(element) {
  const chosen = new Set();
  const named = [...element.querySelectorAll("[data-arm]")];
  const listeners = [];
  const show = () => {
    for (const of of named) {
      const isChosen = chosen.has(of.dataset.arm);
      if (of.tagName === "BUTTON") of.setAttribute("aria-pressed", isChosen);
      of.classList.toggle("chosen", isChosen);
    }
    for (const listener of listeners) listener(chosen);
  };
  const toggle = (arm) => {
    if (!chosen.delete(arm)) chosen.add(arm);
    show();
  };
  for (const of of named) {
    of.addEventListener("click", (event) => event.target.closest("a") ?? toggle(of.dataset.arm));
  }
  return {
    toggle,
    set(arms) {
      chosen.clear();
      for (const arm of arms) chosen.add(arm);
      show();
    },
    onChange(listener) {
      listeners.push(listener);
    },
  };
}
