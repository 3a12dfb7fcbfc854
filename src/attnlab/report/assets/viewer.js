/** The page of a run's attention: one head large, at one step, from one token; all others small. */

import { onPage } from "./page.js";
import { buildCutting } from "./viewer_cut.js";
import { Maps, largest, summary } from "./viewer_data.js";
import { matrixPicture, palette, shownValues, tokenPicture } from "./viewer_draw.js";
import { buildGrid, nameOf } from "./viewer_grid.js";
import { save } from "./viewer_save.js";
import { captionOf, faultOfOther, firstState, headTitle, headsOf, missingWeights,
  otherHead, request, titlesOf } from "./viewer_state.js";

const [PLAY_EVERY, SETTLED, PREFETCHED] = [450, 140, 4];
const IN_ADDRESS = ["step", "layer", "head", "query", "key", "view", "weights", "sort"];
const DARK = matchMedia("(prefers-color-scheme: dark)");

const maps = new Maps();
let viewer = null;

class Viewer {
  constructor(root, data) {
    this.data = data;
    this.find = (name) => root.querySelector(`[data-${name}]`);
    this.ended = new AbortController();
    this.state = firstState(data);
    this.colours = palette();
    this.panels = [];
    this.asked = 0;
    const { layers, axes, named, fault } = data;
    this.grid = buildGrid(this.find("grid"), { layers, axes, named,
      choose: (layer, head) => this.change({ layer, head }) });
    this.cutting = buildCutting(root, { fault, named, context: () => this.#edge(),
      onValues: (step) => { data.valuesAt = step; maps.forget("weights=value"); this.change({ weights: "value" }); } });
    this.#fillOtherHeads();
    this.#listen(root);
  }

  end() {
    this.ended.abort();
    clearInterval(this.playing);
    clearTimeout(this.settling);
  }

  get layer() { return this.data.layers.find(({ key }) => key === this.state.layer); }
  get axes() { return this.data.axes[this.layer.axes]; }
  /** The row that asks: the held one, the one under the pointer, or where the model answers. */
  get query() {
    return Math.min(this.state.query ?? this.state.hovered?.query ?? this.axes.answer, this.axes.queries.length - 1);
  }
  get key() {
    const key = this.state.key ?? this.state.hovered?.key;
    if (key !== undefined && key !== null && key < this.axes.keys.length) return key;
    const values = this.panels.length && this.pictures?.length ? shownValues(this.pictures[0], this.query) : [];
    return largest(values, 1)[0] ?? 0;
  }

  #edge() {
    const { run, probe } = this.data;
    const { layer, axes, query, key } = this;
    const queryToken = `${axes.queries[query]} (${axes.at[query]})`;
    return { run, probe, layer, head: this.state.head, query: axes.at[query], key, queryToken,
      keyToken: `${axes.keys[key]} (${key})` };
  }

  /** Change what is shown, and the address with it. */
  change(changes) {
    const before = this.axes;
    Object.assign(this.state, changes);
    if (!this.layer.heads.includes(this.state.head)) [this.state.head] = this.layer.heads;
    if (this.axes !== before) Object.assign(this.state, { query: null, key: null, hovered: null });
    this.#settle();
    return this.draw();
  }

  /** What waits until the slider rests: the address, the small pictures, what is said. */
  #settle() {
    clearTimeout(this.settling);
    this.settling = setTimeout(() => this.#rest(), SETTLED);
  }

  async #rest() {
    const address = new URL(location.href);
    const form = document.querySelector("[data-what]");
    for (const name of IN_ADDRESS) {
      const value = this.state[name] ?? "";
      const isDefault = { view: "tokens", weights: "raw" }[name] === value;
      if (value === "" || isDefault) address.searchParams.delete(name);
      else address.searchParams.set(name, value);
      form.elements[name].value = value;
    }
    history.replaceState(null, "", address);
    this.cutting.show();
    this.#say();
    await this.#drawGrid();
  }

  #say() {
    if (!this.pictures?.length) return;
    const parts = this.pictures.map((picture) => `${picture.title}, ${summary(shownValues(picture, this.query), this.axes, this.query)}`);
    this.find("said").textContent = `step ${this.state.step}: ${parts.join("; ")}`;
  }

  async #drawGrid() {
    const { run, probe } = this.data;
    const { step, sort } = this.state;
    const small = await maps.small({ run, probe, step });
    if (step !== this.state.step || this.ended.signal.aborted) return;
    const isOld = () => this.ended.signal.aborted || step !== this.state.step || sort !== this.state.sort;
    const measured = await this.grid.show(small, { sort, query: this.query, colours: this.colours, isOld });
    if (measured === null) return;
    this.grid.mark(this.state.layer, this.state.head);
    const shades = "A stronger colour is more, by the root of the weight. A bar marks a head that the evidence names.";
    this.find("grid-note").textContent = sort === "" || measured ? shades
      : `${sort.replace(/^-/, "")} was not measured until step ${step}. ${shades}`;
  }

  #fillOtherHeads() {
    const select = document.querySelector("[data-other-head]");
    if (!select) return;
    for (const { name, layer } of headsOf(this.data.layers)) {
      select.append(new Option(layer.letter ? name : layer.name, name));
    }
    select.value = otherHead(this.data).name;
  }

  /** Draw the large picture, of what is here at once, else after it was fetched. */
  async draw() {
    const asked = ++this.asked;
    const { state, layer } = this;
    const slider = document.getElementById("step");
    slider.value = this.data.steps.indexOf(Number(state.step));
    slider.setAttribute("aria-valuetext", `after step ${state.step}`);
    this.find("step").textContent = Number(state.step).toLocaleString("en");
    this.find("title").textContent = headTitle(layer, state);
    this.find("weights").value = state.weights;
    this.find("sort").value = state.sort;
    for (const button of document.querySelectorAll("[data-view]")) button.setAttribute("aria-pressed", button.dataset.view === state.view);
    this.find("zoom").hidden = state.view !== "matrix";
    this.grid.mark(state.layer, state.head);
    const fault = faultOfOther(this.data, layer);
    const sides = fault === "" ? ["a", "b"] : ["a"];
    const requests = sides.map((side) => request(this.data, state, side));
    let note = fault ?? "";
    let loaded = requests.map((query) => maps.peek(Maps.address("/api/pattern", query)));
    try {
      const missing = missingWeights(this.data, layer, requests);
      if (missing) throw new Error(missing);
      if (!loaded.every(Boolean)) loaded = await Promise.all(requests.map((query) => maps.head(query)));
    } catch (error) {
      [note, loaded] = [error.message, []];
    }
    if (asked !== this.asked || this.ended.signal.aborted) return;
    this.#note(note);
    this.#show(loaded, requests);
    if (!this.settled) {
      this.settled = true;
      await this.#rest();
    }
    // After the picture is painted.
    requestAnimationFrame(() => setTimeout(() => this.#prefetch()));
  }

  #note(text) {
    const note = this.find("weights-note");
    note.textContent = text;
    const canMeasure = this.state.weights === "value" && this.data.valuesAt === null && !this.data.fault && !this.layer.cut;
    if (!canMeasure) return;
    const button = document.createElement("button");
    Object.assign(button, { type: "button", className: "act", textContent: "measure the norms of values", disabled: this.cutting.isBusy });
    button.addEventListener("click", () => { button.disabled = true; this.cutting.measureValues(); });
    note.append(" ", button);
  }

  #prefetch() {
    const { steps } = this.data;
    if (this.state.weights !== "raw") return;
    const at = steps.indexOf(Number(this.state.step));
    for (const step of [...steps.slice(at + 1, at + 1 + PREFETCHED), ...steps.slice(Math.max(0, at - 2), at)]) {
      maps.head(request(this.data, { ...this.state, step: String(step) })).catch(() => {});
    }
  }

  /** Show maps that are here: one picture, or A, B and their difference. */
  #show(loaded, requests) {
    const titles = titlesOf(this.data, this.layer, this.state, requests);
    this.pictures = loaded.map((map, at) => ({ title: titles[at], map }));
    if (loaded.length === 2) this.pictures.push({ title: titles[2], map: loaded[0], minus: loaded[1] });
    this.find("caption").textContent = this.pictures.length
      ? captionOf(this.data, this.layer, this.state, requests) : "";
    this.#buildPanels();
    this.redraw();
  }

  #buildPanels() {
    const home = this.find("panels");
    home.classList.toggle("beside", this.pictures.length > 1);
    const kind = JSON.stringify([this.state.view, this.layer.axes, this.pictures.length, home.clientWidth, this.colours]);
    if (kind === this.builtAs) return;
    this.builtAs = kind;
    const width = Math.max(180, Math.min(640, home.clientWidth / (home.clientWidth > 700 ? this.pictures.length : 1) - 24));
    const options = { roleColours: this.data.roles, width,
      onQuery: (query, isClick, key) => this.#point(query, isClick, key),
      onKey: (key) => this.change({ key, query: this.query }) };
    const draw = this.state.view === "matrix" ? matrixPicture : tokenPicture;
    const boxes = this.pictures.map(() => document.createElement("div"));
    const drawings = boxes.map((box) => {
      box.className = this.state.view === "matrix" ? "matrix" : "lines";
      return draw(box, this.axes, this.colours, options);
    });
    home.replaceChildren(...boxes.map((box, at) => {
      const panel = document.createElement("div");
      const title = document.createElement("p");
      panel.className = "panel";
      title.className = "panel-title";
      box.tabIndex = 0;
      box.dataset.picture = at;
      box.setAttribute("role", "group");
      panel.append(title, box);
      return panel;
    }));
    this.panels = drawings.map((drawing, at) => ({ drawing, box: boxes[at], title: home.children[at].firstChild }));
  }

  /** Draw the pictures again as the query, key or zoom is now. */
  redraw() {
    const locked = this.state.query !== null;
    const [query, key] = [this.query, this.key];
    const centre = [this.state.query ?? this.axes.answer, this.state.key ?? key];
    this.pictures.forEach((picture, at) => {
      const { drawing, box, title } = this.panels[at];
      title.textContent = picture.title;
      title.hidden = this.pictures.length < 2;
      drawing.show(picture, { query, key, locked, zoom: this.state.zoom, centre });
      box.setAttribute("aria-label", `${picture.title}: ${this.axes.queries[query]} asks`);
    });
    this.find("unlock").hidden = !locked;
  }

  #point(query, isClick, key) {
    if (isClick) {
      const isHeld = this.state.query === query && (key === undefined || key === this.state.key);
      this.change(isHeld ? { query: null, key: null } : { query, key: key ?? null });
    } else if (this.state.query === null) {
      this.state.hovered = { query, key };
      this.redraw();
      this.#settleHover();
    }
  }

  #settleHover() {
    clearTimeout(this.hovering);
    this.hovering = setTimeout(() => { this.cutting.show(); this.#say(); }, SETTLED);
  }

  step(by) {
    const { steps } = this.data;
    const at = steps.indexOf(Number(this.state.step)) + by;
    if (at < 0 || at >= steps.length) return false;
    this.change({ step: String(steps[at]) });
    return true;
  }

  play() {
    const button = this.find("play");
    const stop = () => {
      clearInterval(this.playing);
      this.playing = null;
      button.textContent = "▶";
      button.setAttribute("aria-label", "play the steps");
    };
    if (this.playing) return stop();
    if (Number(this.state.step) === this.data.steps.at(-1)) this.change({ step: String(this.data.steps[0]) });
    button.textContent = "❚❚";
    button.setAttribute("aria-label", "pause");
    this.playing = setInterval(() => this.step(1) || stop(), PLAY_EVERY);
    return null;
  }

  #listen(root) {
    const signal = this.ended.signal;
    const on = (element, kind, listener) => element?.addEventListener(kind, listener, { signal });
    on(document.getElementById("step"), "input", (event) => this.change({ step: String(this.data.steps[event.target.value]) }));
    on(this.find("play"), "click", () => this.play());
    on(this.find("unlock"), "click", () => this.change({ query: null, key: null }));
    on(this.find("sort"), "change", (event) => this.change({ sort: event.target.value }));
    on(this.find("weights"), "change", (event) => this.change({ weights: event.target.value }));
    for (const button of root.querySelectorAll("[data-view]")) on(button, "click", () => this.change({ view: button.dataset.view }));
    for (const button of root.querySelectorAll("[data-zoom-by]")) on(button, "click", () => this.#zoom(Number(button.dataset.zoomBy)));
    for (const button of root.querySelectorAll("[data-save]")) {
      on(button, "click", () => save(button.dataset.save, { pictures: this.pictures, axes: this.axes, kind: this.state.view,
        caption: this.find("caption").textContent, roleColours: this.data.roles, name: `${this.data.run}-step${this.state.step}-${nameOf(this.layer, this.state.head) || "influence"}`,
        state: { query: this.query, key: this.key, locked: true, zoom: this.state.zoom, centre: [this.query, this.key] } }));
    }
    // The name of another run is no step and no head.
    on(document.getElementById("against"), "change", () => { const other = document.getElementById("other"); if (other) other.disabled = true; });
    on(document, "attnlab:live", ({ detail }) => this.#grow(detail.progress[this.data.run]?.progress));
    on(document, "keydown", (event) => this.#press(event));
    on(this.find("panels"), "pointerleave", () => { if (this.state.query === null) { this.state.hovered = null; this.redraw(); this.#settleHover(); } });
    on(DARK, "change", () => this.#recolour());
    on(window, "beforeprint", () => this.#recolour("light"));
    on(window, "afterprint", () => this.#recolour());
    on(window, "resize", () => { if (this.pictures) { this.#buildPanels(); this.redraw(); } });
  }

  /** Add the steps that a run recorded while it trains; whoever looks at the last one follows it. */
  async #grow(progress) {
    if (progress === undefined || progress === this.progress) return;
    this.progress = progress;
    const { run, probe, steps } = this.data;
    const response = await fetch(Maps.address("/api/recorded-steps", { run, probe }));
    if (!response.ok || this.ended.signal.aborted) return;
    const recorded = await response.json();
    if (recorded.length <= steps.length) return;
    const isAtEnd = Number(this.state.step) === steps.at(-1);
    this.data.steps = recorded;
    document.getElementById("step").max = recorded.length - 1;
    this.change(isAtEnd ? { step: String(recorded.at(-1)) } : {});
  }

  #recolour(of) {
    this.colours = palette(of);
    this.#buildPanels();
    this.redraw();
    this.#drawGrid();
  }

  #zoom(by) {
    const most = Math.max(0, Math.ceil(Math.log2(this.axes.keys.length / 8)));
    this.change({ zoom: Math.min(most, Math.max(0, this.state.zoom + by)) });
  }

  #press(event) {
    const { target, key } = event;
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (target.matches("input:not([type=range]), select, textarea")) return;
    const onPicture = target.closest("[data-picture]");
    const inViewer = target.closest("[data-viewer]") && !target.closest("[data-grid]");
    const moved = (place, by, size) => Math.min(size - 1, Math.max(0, place + by));
    const { queries, keys } = this.axes;
    const act = {
      "[": () => this.step(-1), "]": () => this.step(1),
      ...(inViewer && { PageUp: () => this.step(-1), PageDown: () => this.step(1) }),
      ...((onPicture || target === document.body || target.type === "range") && { " ": () => this.play() }),
      ...(onPicture && {
        ArrowDown: () => this.#move({ query: moved(this.query, 1, queries.length) }),
        ArrowUp: () => this.#move({ query: moved(this.query, -1, queries.length) }),
        ArrowRight: () => this.#move({ key: moved(this.key, 1, keys.length) }),
        ArrowLeft: () => this.#move({ key: moved(this.key, -1, keys.length) }),
        Home: () => this.#move({ query: 0 }), End: () => this.#move({ query: queries.length - 1 }),
        Enter: () => this.change({ query: this.query, key: this.state.key ?? this.state.hovered?.key ?? null }),
        Escape: () => this.change({ query: null, key: null, hovered: null }),
        "+": () => this.#zoom(1), "-": () => this.#zoom(-1),
      }),
    }[key];
    if (!act) return;
    event.preventDefault();
    act();
  }

  /** Move the token that asks, which then is held, or the one that is read. */
  #move(changes) {
    this.change("query" in changes ? { ...changes, key: null } : { query: this.query, ...changes });
    for (const { drawing } of this.panels) drawing.reveal(this.query);
  }
}

onPage(async (data) => {
  viewer?.end();
  const root = document.querySelector("[data-viewer]");
  viewer = root && data.layers ? new Viewer(root, data) : null;
  if (viewer) await viewer.draw();
});
