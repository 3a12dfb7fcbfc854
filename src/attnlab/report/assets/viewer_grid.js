/** The grid of heads: a small picture of each, in the order of the model or of a measure. */

import { largest, weightOf } from "./viewer_data.js";
import { drawSmall } from "./viewer_draw.js";

/** The most milliseconds for which small pictures are drawn without a pause. */
const MOST_BUSY = 8;

/** Build the grid of all heads; `choose(layer, head)` is called for the one that is chosen. */
export function buildGrid(home, { layers, axes, named, choose }) {
  const places = layers.flatMap((layer) => layer.heads.map((head, at) => build(layer, head, at)));
  const most = Math.max(...layers.map((layer) => layer.heads.length));
  home.classList.toggle("many", most > 8);

  function build(layer, head, at) {
    const button = document.createElement("button");
    const [canvas, label] = ["canvas", "span"].map((name) => document.createElement(name));
    canvas.setAttribute("role", "img");
    button.type = "button";
    button.tabIndex = -1;
    button.append(canvas, label);
    const evidence = layer.kind === "attention" && named[nameOf(layer, head)];
    if (evidence) button.classList.add("named");
    button.title = [`${layer.name}, head ${head}`, ...(evidence || [])].join("\n");
    const place = { layer, head, at, button, canvas, label, value: null };
    button.addEventListener("click", () => choose(layer.key, head));
    return place;
  }

  /** Put the buttons in their order: rows of layers, or one list by a measure. */
  function arrange(sort) {
    home.classList.toggle("sorted", sort !== "");
    if (sort === "") {
      home.replaceChildren(...layers.map((layer) => {
        const row = document.createElement("div");
        const name = document.createElement("span");
        name.textContent = layer.letter ? layer.name : "influence";
        name.className = "layer-name";
        row.className = "layer-row";
        const own = places.filter((place) => place.layer === layer);
        row.append(name, ...own.map((place) => place.button));
        return row;
      }));
      return places;
    }
    const sorted = order(sort);
    home.replaceChildren(...sorted.map((place) => place.button));
    return sorted;
  }

  /** All heads, those with the wanted values of the measure first. */
  function order(sort) {
    if (sort === "") return places;
    const sign = sort.startsWith("-") ? -1 : 1;
    const known = places.filter(({ value }) => value !== null);
    known.sort((a, b) => sign * (a.value - b.value));
    return [...known, ...places.filter(({ value }) => value === null)];
  }

  let [ordered, arranged] = [places, ""];
  home.addEventListener("keydown", (event) => {
    const at = ordered.findIndex((place) => place.button === document.activeElement);
    if (at < 0) return;
    const { offsetTop } = ordered[at].button;
    const perRow = ordered.filter(({ button }) => button.offsetTop === offsetTop).length;
    const by = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: perRow, ArrowUp: -perRow, Home: -at,
      End: ordered.length - 1 - at }[event.key];
    if (by === undefined) return;
    event.preventDefault();
    event.stopPropagation();
    focusOn(ordered[Math.min(ordered.length - 1, Math.max(0, at + by))]);
  });

  /** Scroll the grid, and not the page, to a head that is out of sight. */
  function revealed({ button }) {
    const [inner, outer] = [button, home].map((of) => of.getBoundingClientRect());
    if (inner.top < outer.top) home.scrollTop -= outer.top - inner.top + 4;
    else if (inner.bottom > outer.bottom) home.scrollTop += inner.bottom - outer.bottom + 4;
  }

  function focusOn(place) {
    for (const { button } of places) button.tabIndex = button === place.button ? 0 : -1;
    place.button.focus();
  }

  return {
    /** Mark the chosen head. */
    mark(layerKey, head) {
      for (const place of places) {
        const isChosen = place.layer.key === layerKey && place.head === head;
        place.button.setAttribute("aria-pressed", isChosen);
        place.button.tabIndex = isChosen ? 0 : -1;
        if (isChosen) revealed(place);
      }
    },
    /** Draw all small pictures of a step, in an order; return at how many heads it is measured, or
        null where `isOld()` says that another step is wanted by now. */
    async show(small, { sort, query, colours, isOld }) {
      const measure = sort.replace(/^-/, "");
      let [measured, began] = [0, performance.now()];
      for (const place of places) {
        const layer = small.layers.get(place.layer.key);
        if (!layer) continue;
        if (performance.now() - began > MOST_BUSY) {
          // The slider comes first: it may move between two pieces of work.
          await new Promise((resolve) => setTimeout(resolve));
          if (isOld()) return null;
          began = performance.now();
        }
        drawSmall(place.canvas, layer, place.at, colours);
        place.value = layer.measures[measure]?.[place.at] ?? null;
        measured += place.value !== null;
        const name = `${place.layer.name}, head ${place.head}`;
        const value = measure && format(place.value);
        place.label.textContent = [shortName(place), value].filter(Boolean).join(" ");
        const parts = [name, said(place, layer, query), measure && `${measure} ${value}`];
        place.canvas.setAttribute("aria-label", parts.filter(Boolean).join("; "));
      }
      const names = order(sort).map(({ layer, head }) => `${layer.key}.${head}`).join();
      if (arranged !== `${sort === ""} ${names}`) {
        ordered = arrange(sort);
        arranged = `${sort === ""} ${names}`;
      }
      return measured;
    },
  };

  function shortName({ layer, head }) {
    return nameOf(layer, head) || "on the answer";
  }

  /** The largest weights of the chosen token, where the small picture is the whole one. */
  function said({ layer, at }, { rows, columns, codes }, query) {
    const { keys, queries } = axes[layer.axes];
    if (rows !== queries.length || columns !== keys.length) return "";
    const row = Math.min(query, rows - 1);
    const from = (at * rows + row) * columns;
    const values = Array.from(codes.subarray(from, from + columns), weightOf);
    const most = largest(values, 3).map((key) => `${keys[key]} ${values[key].toFixed(2)}`);
    return `${queries[row]}: ${most.join(", ")}`;
  }
}

/** The name of a head, as in L1H2, or M0H0 where the layer does not attend. */
export function nameOf(layer, head) {
  return layer.letter ? `${layer.letter}${layer.key.replace(/^m/, "")}H${head}` : "";
}

function format(value) {
  return value === null ? "–" : value.toPrecision(2).replace(/^0\./, ".");
}
