/** The large pictures side by side: one, or A, B and their difference. */

import { largest } from "./viewer_data.js";
import { matrixPicture, shownValues, tokenPicture } from "./viewer_draw.js";

/** Tokens of a sequence that is not seen at once: its strongest weights are named. */
const LONG = 64;
const [NARROWEST, WIDEST, ONE_COLUMN] = [180, 640, 700];

export class Panels {
  constructor(home, strongest, { roles, onQuery, onKey, onPlace }) {
    Object.assign(this, { home, strongest, roles, onQuery, onKey, onPlace });
    this.panels = [];
    this.builtAs = "";
  }

  /** Show pictures as `view` ("tokens" or "matrix"); `state` has query, key, zoom and centre. */
  show(pictures, axes, view, colours, state) {
    const isBuilt = this.#build(pictures.length, axes, view, colours);
    pictures.forEach((picture, at) => {
      const { drawing, box, title } = this.panels[at];
      title.textContent = picture.title;
      title.hidden = pictures.length < 2;
      drawing.show(picture, state);
      box.setAttribute("aria-label", `${picture.title}: ${axes.queries[state.query]} asks`);
    });
    if (isBuilt) this.reveal(state.query);
    this.#nameStrongest(pictures, axes, state.query);
  }

  /** Scroll long pictures to a query, or to a key. */
  reveal(query, key) {
    for (const { drawing } of this.panels) drawing.reveal(query, key);
  }

  /** Build the places of pictures where they are not as wanted; return whether that was so. */
  #build(count, axes, view, colours) {
    this.home.classList.toggle("beside", count > 1);
    const { clientWidth } = this.home;
    const wanted = JSON.stringify([view, axes.id, count, clientWidth, colours]);
    if (wanted === this.builtAs) return false;
    this.builtAs = wanted;
    const columns = clientWidth > ONE_COLUMN ? count : 1;
    const options = {
      roleColours: this.roles,
      width: Math.max(NARROWEST, Math.min(WIDEST, clientWidth / columns - 24)),
      onQuery: this.onQuery,
      onKey: this.onKey,
    };
    const draw = view === "matrix" ? matrixPicture : tokenPicture;
    this.panels = Array.from({ length: count }, (_, at) => {
      const [panel, title, box] = ["div", "p", "div"].map((name) => document.createElement(name));
      panel.className = "panel";
      title.className = "panel-title";
      box.className = view === "matrix" ? "matrix" : "lines";
      box.tabIndex = 0;
      box.dataset.picture = at;
      box.setAttribute("role", "group");
      panel.append(title, box);
      return { panel, title, box, drawing: draw(box, axes, colours, options) };
    });
    this.home.replaceChildren(...this.panels.map(({ panel }) => panel));
    return true;
  }

  #nameStrongest(pictures, axes, query) {
    const isLong = axes.keys.length > LONG && pictures.length > 0;
    const values = isLong ? shownValues(pictures[0], query) : [];
    this.strongest.replaceChildren(...largest(values, 6).map((key) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = `${axes.keys[key]} (${key}) ${values[key].toFixed(2)}`;
      button.addEventListener("click", () => this.onPlace(query, key));
      return button;
    }));
  }
}
