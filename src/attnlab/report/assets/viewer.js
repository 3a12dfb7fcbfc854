/** The page of a run's attention: one head large, at one step, from one token; all others small. */

import { onPage } from "./page.js";
import { buildCutting } from "./viewer_cut.js";
import { Maps, largest, summary } from "./viewer_data.js";
import { palette, shownValues } from "./viewer_draw.js";
import { buildGrid, nameOf } from "./viewer_grid.js";
import { Panels } from "./viewer_panels.js";
import { buildPlay } from "./viewer_play.js";
import { save } from "./viewer_save.js";
import { captionOf, headTitle, titlesOf } from "./viewer_state.js";
import { faultOfOther, firstState, headsOf, missingWeights, otherHead, request } from "./viewer_state.js";

const [SETTLED, PREFETCHED] = [140, 4];
const IN_ADDRESS = ["step", "layer", "head", "query", "key", "view", "weights", "sort"];
const DEFAULTS = { view: "tokens", weights: "raw" };
const DARK = matchMedia("(prefers-color-scheme: dark)");
const SHADES = "A stronger colour is more, by the root of the weight. A bar marks a head that the "
  + "evidence names.";

const maps = new Maps();
let viewer = null;

class Viewer {
  constructor(root, data) {
    this.data = data;
    data.axes.forEach((axes, id) => Object.assign(axes, { id }));
    this.find = (name) => root.querySelector(`[data-${name}]`);
    this.ended = new AbortController();
    this.state = firstState(data);
    this.colours = palette();
    this.pictures = [];
    this.asked = 0;
    const { layers, axes, named, fault, roles } = data;
    this.grid = buildGrid(this.find("grid"), {
      layers, axes, named,
      choose: (layer, head) => this.change({ layer, head }),
    });
    this.panels = new Panels(this.find("panels"), this.find("strongest"), {
      roles,
      onQuery: (query, isClick, key) => this.#point(query, isClick, key),
      onKey: (key) => this.change({ key, query: this.query }),
      onPlace: (query, key) => this.change({ query, key }).then(() => this.panels.reveal(query, key)),
    });
    this.cutting = buildCutting(root, {
      fault, named,
      context: () => this.#edge(),
      onValues: (step) => {
        data.valuesAt = step;
        maps.forget("weights=value");
        this.change({ weights: "value" });
      },
    });
    this.player = buildPlay(this.find("play"), {
      rewind: () => {
        const isAtEnd = Number(this.state.step) === data.steps.at(-1);
        if (isAtEnd) this.change({ step: String(data.steps[0]) });
      },
      next: () => this.step(1),
    });
    this.#fillOtherHeads();
    this.#listen(root);
  }

  end() {
    this.ended.abort();
    this.player.stop();
    clearTimeout(this.settling);
    clearTimeout(this.hovering);
  }

  get layer() { return this.data.layers.find(({ key }) => key === this.state.layer); }

  get axes() { return this.data.axes[this.layer.axes]; }

  /** The row that asks: the held one, the one under the pointer, or where the model answers. */
  get query() {
    const row = this.state.query ?? this.state.hovered?.query ?? this.axes.answer;
    return Math.min(row, this.axes.queries.length - 1);
  }

  /** The token that is read: the chosen one, or the one with the largest weight. */
  get key() {
    const key = this.state.key ?? this.state.hovered?.key;
    if (key !== undefined && key !== null && key < this.axes.keys.length) return key;
    return this.pictures.length ? largest(shownValues(this.pictures[0], this.query), 1)[0] : 0;
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
    // Until the slider rests, the address, the small pictures and what is said wait.
    clearTimeout(this.settling);
    this.settling = setTimeout(() => this.#rest(), SETTLED);
    return this.draw();
  }

  async #rest() {
    const address = new URL(location.href);
    const form = document.querySelector("[data-what]");
    for (const name of IN_ADDRESS) {
      const value = this.state[name] ?? "";
      if (value === "" || DEFAULTS[name] === value) address.searchParams.delete(name);
      else address.searchParams.set(name, value);
      form.elements[name].value = value;
    }
    history.replaceState(null, "", address);
    this.cutting.show();
    this.#say();
    await this.#drawGrid();
  }

  #say() {
    if (!this.pictures.length) return;
    const parts = this.pictures.map((picture) => {
      const values = shownValues(picture, this.query);
      return `${picture.title}, ${summary(values, this.axes, this.query)}`;
    });
    this.find("said").textContent = `step ${this.state.step}: ${parts.join("; ")}`;
  }

  async #drawGrid() {
    const { run, probe } = this.data;
    const { step, sort } = this.state;
    const isOld = () =>
      this.ended.signal.aborted || step !== this.state.step || sort !== this.state.sort;
    const small = await maps.small({ run, probe, step });
    if (isOld()) return;
    const shown = { sort, query: this.query, colours: this.colours, isOld };
    const measured = await this.grid.show(small, shown);
    if (measured === null) return;
    this.grid.mark(this.state.layer, this.state.head);
    const isMissing = sort !== "" && !measured;
    this.find("grid-note").textContent = isMissing
      ? `${sort.replace(/^-/, "")} was not measured until step ${step}. ${SHADES}` : SHADES;
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
    const { data, state, layer } = this;
    this.#showControls();
    const fault = faultOfOther(data, layer);
    const sides = fault === "" ? ["a", "b"] : ["a"];
    const requests = sides.map((side) => request(data, state, side));
    let note = fault ?? "";
    let loaded = requests.map((query) => maps.peek(Maps.address("/api/pattern", query)));
    try {
      const missing = missingWeights(data, layer, requests);
      if (missing) throw new Error(missing);
      if (!loaded.every(Boolean)) {
        loaded = await Promise.all(requests.map((query) => maps.head(query)));
      }
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

  #showControls() {
    const { state, layer } = this;
    const slider = document.getElementById("step");
    slider.value = this.data.steps.indexOf(Number(state.step));
    slider.setAttribute("aria-valuetext", `after step ${state.step}`);
    this.find("step").textContent = Number(state.step).toLocaleString("en");
    this.find("title").textContent = headTitle(layer, state);
    this.find("weights").value = state.weights;
    this.find("sort").value = state.sort;
    for (const button of document.querySelectorAll("[data-view]")) {
      button.setAttribute("aria-pressed", button.dataset.view === state.view);
    }
    this.find("zoom").hidden = state.view !== "matrix";
    this.grid.mark(state.layer, state.head);
  }

  #note(text) {
    const note = this.find("weights-note");
    note.textContent = text;
    const isWanted = this.state.weights === "value" && this.data.valuesAt === null;
    if (!isWanted || this.data.fault || this.layer.cut) return;
    const button = document.createElement("button");
    Object.assign(button, { type: "button", className: "act", disabled: this.cutting.isBusy });
    button.textContent = "measure the norms of values";
    button.addEventListener("click", () => {
      button.disabled = true;
      this.cutting.measureValues();
    });
    note.append(" ", button);
  }

  #prefetch() {
    const { steps } = this.data;
    if (this.state.weights !== "raw" || this.ended.signal.aborted) return;
    const at = steps.indexOf(Number(this.state.step));
    const near = [...steps.slice(at + 1, at + 1 + PREFETCHED), ...steps.slice(Math.max(0, at - 2), at)];
    for (const step of near) {
      maps.head(request(this.data, { ...this.state, step: String(step) })).catch(() => {});
    }
  }

  /** Show maps that are here: one picture, or A, B and their difference. */
  #show(loaded, requests) {
    const { data, layer, state } = this;
    const titles = titlesOf(data, layer, state, requests);
    this.pictures = loaded.map((map, at) => ({ title: titles[at], map }));
    if (loaded.length === 2) {
      this.pictures.push({ title: titles[2], map: loaded[0], minus: loaded[1] });
    }
    this.find("caption").textContent = this.pictures.length
      ? captionOf(data, layer, state, requests) : "";
    this.redraw();
  }

  /** Draw the pictures again as the query, key or zoom is now. */
  redraw() {
    const { state, axes, query, key } = this;
    const locked = state.query !== null;
    const centre = [state.query ?? axes.answer, state.key ?? key];
    const shown = { query, key, locked, zoom: state.zoom, centre };
    this.panels.show(this.pictures, axes, state.view, this.colours, shown);
    // It keeps its place, so that the picture stays under the pointer.
    this.find("unlock").style.visibility = locked ? "visible" : "hidden";
  }

  #point(query, isClick, key) {
    if (isClick) {
      const isHeld = this.state.query === query && (key === undefined || key === this.state.key);
      this.change(isHeld ? { query: null, key: null } : { query, key: key ?? null });
    } else if (this.state.query === null) {
      this.#hover({ query, key });
    }
  }

  #hover(hovered) {
    this.state.hovered = hovered;
    this.redraw();
    clearTimeout(this.hovering);
    this.hovering = setTimeout(() => {
      this.cutting.show();
      this.#say();
    }, SETTLED);
  }

  step(by) {
    const { steps } = this.data;
    const at = steps.indexOf(Number(this.state.step)) + by;
    if (at < 0 || at >= steps.length) return false;
    this.change({ step: String(steps[at]) });
    return true;
  }

  #listen(root) {
    const { signal } = this.ended;
    const on = (element, kind, listener) => element?.addEventListener(kind, listener, { signal });
    const onEach = (name, listener) => {
      for (const button of root.querySelectorAll(`[data-${name}]`)) {
        on(button, "click", () => listener(button.getAttribute(`data-${name}`)));
      }
    };
    const [step, against] = ["step", "against"].map((id) => document.getElementById(id));
    on(step, "input", () => this.change({ step: String(this.data.steps[step.value]) }));
    on(this.find("play"), "click", () => this.player.toggle());
    on(this.find("unlock"), "click", () => this.change({ query: null, key: null }));
    on(this.find("sort"), "change", (event) => this.change({ sort: event.target.value }));
    on(this.find("weights"), "change", (event) => this.change({ weights: event.target.value }));
    onEach("view", (view) => this.change({ view }));
    onEach("zoom-by", (by) => this.#zoom(Number(by)));
    onEach("save", (kind) => this.#save(kind));
    on(against, "change", () => {
      // The name of another run is no step and no head.
      const other = document.getElementById("other");
      if (other) other.disabled = true;
    });
    on(this.find("panels"), "pointerleave", () => {
      if (this.state.query === null) this.#hover(null);
    });
    on(document, "attnlab:live", ({ detail }) =>
      this.#grow(detail.progress[this.data.run]?.progress));
    on(document, "keydown", (event) => this.#press(event));
    on(DARK, "change", () => this.#recolour());
    on(window, "beforeprint", () => this.#recolour("light"));
    on(window, "afterprint", () => this.#recolour());
    on(window, "resize", () => this.redraw());
  }

  #save(kind) {
    const { data, state, layer, query, key } = this;
    save(kind, {
      pictures: this.pictures, axes: this.axes, kind: state.view, roleColours: data.roles,
      caption: this.find("caption").textContent,
      name: `${data.run}-step${state.step}-${nameOf(layer, state.head) || "influence"}`,
      state: { query, key, locked: true, zoom: state.zoom, centre: [query, key] },
    });
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
    this.redraw();
    this.#drawGrid();
  }

  #zoom(by) {
    const most = Math.max(0, Math.ceil(Math.log2(this.axes.keys.length / 8)));
    this.change({ zoom: Math.min(most, Math.max(0, this.state.zoom + by)) });
  }

  #press(event) {
    const { target } = event;
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (target.matches("input:not([type=range]), select, textarea")) return;
    const onPicture = target.closest("[data-picture]");
    const inViewer = target.closest("[data-viewer]") && !target.closest("[data-grid]");
    const plays = onPicture || target === document.body || target.type === "range";
    const [rows, columns] = [this.axes.queries.length, this.axes.keys.length];
    const within = (place, size) => Math.min(size - 1, Math.max(0, place));
    const ask = (query) => this.#move({ query: within(query, rows), key: null });
    const read = (key) => this.#move({ query: this.query, key: within(key, columns) });
    const act = {
      "[": () => this.step(-1),
      "]": () => this.step(1),
      ...(inViewer && { PageUp: () => this.step(-1), PageDown: () => this.step(1) }),
      ...(plays && { " ": () => this.player.toggle() }),
      ...(onPicture && {
        ArrowDown: () => ask(this.query + 1),
        ArrowUp: () => ask(this.query - 1),
        ArrowRight: () => read(this.key + 1),
        ArrowLeft: () => read(this.key - 1),
        Home: () => ask(0),
        End: () => ask(rows - 1),
        Enter: () => this.#move({ query: this.query, key: this.state.hovered?.key ?? this.state.key }),
        Escape: () => this.change({ query: null, key: null, hovered: null }),
        "+": () => this.#zoom(1),
        "-": () => this.#zoom(-1),
      }),
    }[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  }

  /** Move the token that asks, which then is held, or the one that is read. */
  #move(changes) {
    this.change(changes);
    this.panels.reveal(this.query);
  }
}

onPage(async (data) => {
  viewer?.end();
  const root = document.querySelector("[data-viewer]");
  viewer = root && data.layers ? new Viewer(root, data) : null;
  if (viewer) await viewer.draw();
});
