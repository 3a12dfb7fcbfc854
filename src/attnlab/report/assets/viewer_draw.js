/** Pictures of one head: tokens with lines, a matrix, and small matrices. */

import { rowOf, summary } from "./viewer_data.js";

export const SVG = "http://www.w3.org/2000/svg";
const ROW = 19;
/** The least weight that has a line. */
const LEAST = 0.002;
/** The width of the scale of colours. */
const SCALE = 150;
const FONT = "13px system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif";
const LIGHT = {
  paper: "#ffffff", ink: "#1c1e21", soft: "#5c636b", line: "#e3e6e9", blue: "#0072b2", orange: "#b34700",
};
/** The most tokens whose names stand beside a matrix. */
const MOST_NAMES = 48;

/** The colours of the page, dark or light; for files and for print, those of a light page. */
export function palette(of = "page") {
  if (of === "light") return LIGHT;
  const style = getComputedStyle(document.documentElement);
  const read = (name) => style.getPropertyValue(`--${name}`).trim();
  return {
    paper: read("card"), ink: read("ink"), soft: read("soft"), line: read("line"),
    blue: read("focus"), orange: read("warn"),
  };
}

function rgb(colour) {
  const hex = colour.length === 4 ? colour.replace(/[^#]/g, "$&$&") : colour;
  return [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
}

function mix(from, to, share) {
  return from.map((value, at) => Math.round(value + (to[at] - value) * share));
}

/** One hue from the paper to the ink: the colours of the roots of weights, as bytes of pixels. */
function ramp(paper, hue, ink) {
  return Uint32Array.from({ length: 256 }, (_, code) => {
    const share = code / 255;
    const colour = share < 0.7 ? mix(paper, hue, share / 0.7)
      : mix(hue, mix(hue, ink, 0.6), (share - 0.7) / 0.3);
    return (255 << 24) | (colour[2] << 16) | (colour[1] << 8) | colour[0];
  });
}

let ramps = { of: "", more: null, less: null };
export function rampsOf(colours) {
  const of = JSON.stringify(colours);
  if (ramps.of !== of) {
    const [paper, ink, blue, orange] =
      ["paper", "ink", "blue", "orange"].map((name) => rgb(colours[name]));
    ramps = { of, more: ramp(paper, blue, ink), less: ramp(paper, orange, ink) };
  }
  return ramps;
}

/** What a picture shows of one map, or of the difference of two. */
export function shownValues(picture, query) {
  const first = rowOf(picture.map, query);
  if (!picture.minus) return first;
  const second = rowOf(picture.minus, query);
  return first.map((value, key) => value - second[key]);
}

export function setAll(element, attributes) {
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
}

/** Make an element of a drawing in a parent. */
export function element(name, attributes, parent, text) {
  const made = document.createElementNS(SVG, name);
  setAll(made, attributes);
  if (text !== undefined) made.textContent = text;
  parent?.append(made);
  return made;
}

let measuring = null;
function widest(texts) {
  measuring ??= document.createElement("canvas").getContext("2d");
  measuring.font = FONT;
  return Math.ceil(Math.max(24, ...texts.map((text) => measuring.measureText(text).width)));
}

/** Two columns of tokens: a line from the one that asks to each one that it reads, as opaque as its
    weight. Return the picture with `show(picture, state)`. */
export function tokenPicture(home, axes, colours, { onQuery, onKey, roleColours }) {
  const [left, right] = [widest(axes.queries), widest(axes.keys)];
  const gap = Math.max(70, Math.min(130, 340 - left - right));
  const [start, end] = [left + 18, left + 18 + gap];
  const width = end + right + 56;
  const yOfKey = (key) => key * ROW + ROW / 2 + 4;
  const yOfQuery = (row) => yOfKey(axes.within ? axes.at[row] : row);
  const height = Math.max(axes.keys.length * ROW, yOfQuery(axes.queries.length - 1) + ROW / 2) + 8;
  const svg = element("svg", {
    xmlns: SVG, width, height, viewBox: `0 0 ${width} ${height}`,
    "font-family": FONT.slice(5), "font-size": 13, role: "img",
  });
  const lines = element("g", { "stroke-width": 3, "stroke-linecap": "round" }, svg);
  const pill = { height: ROW - 2, rx: 5 };
  const asked = element("rect", {
    ...pill, x: 2, width: left + 14, fill: colours.blue, "fill-opacity": 0.16,
  }, svg);
  const held = element("rect", {
    ...pill, x: end + 2, width: right + 48, fill: "none", stroke: colours.soft, "stroke-dasharray": "2 2",
  }, svg);
  const roleOf = (position) => roleColours[axes.roles[position]];
  const queryTexts = axes.queries.map((token, row) => element("text", {
    x: left + 8, y: yOfQuery(row) + 4.5, "text-anchor": "end", fill: colours.ink,
  }, svg, token));
  const rows = axes.keys.map((token, key) => {
    const y = yOfKey(key);
    const line = element("line", { x1: start, x2: end, y2: y, visibility: "hidden" }, lines);
    const shade = element("rect", {
      ...pill, x: end + 3, y: y - ROW / 2 + 1, width: right + 10, "fill-opacity": 0,
    }, svg);
    if (roleOf(key)) {
      element("rect", { x: end - 3, y: y - 4, width: 4, height: 8, rx: 1.5, fill: roleOf(key) }, svg);
    }
    element("text", { x: end + 8, y: y + 4.5, fill: colours.ink }, svg, token);
    const number = element("text", {
      x: end + right + 18, y: y + 4.5, fill: colours.soft, "font-size": 11,
    }, svg);
    return { line, shade, number, isSeen: false };
  });
  const reach = element("g", { fill: "transparent", "data-reach": "" }, svg);
  axes.queries.forEach((_, row) => {
    const place = element("rect", {
      x: 0, y: yOfQuery(row) - ROW / 2, width: start, height: ROW, "data-query": row,
    }, reach);
    place.addEventListener("pointerenter", () => onQuery(row, false));
    place.addEventListener("click", () => onQuery(row, true));
  });
  axes.keys.forEach((_, key) => {
    const place = element("rect", {
      x: end, y: yOfKey(key) - ROW / 2, width: right + 56, height: ROW, "data-key": key,
    }, reach);
    place.addEventListener("click", () => onKey(key));
  });
  home.replaceChildren(svg);
  let shown = -1;
  return {
    svg,
    show(picture, { query, key, locked }) {
      const values = shownValues(picture, query);
      const y = yOfQuery(query);
      if (shown >= 0) queryTexts[shown].removeAttribute("font-weight");
      queryTexts[query].setAttribute("font-weight", 600);
      shown = query;
      asked.setAttribute("y", y - ROW / 2 + 1);
      asked.setAttribute("stroke", locked ? colours.blue : "none");
      held.setAttribute("y", yOfKey(key) - ROW / 2 + 1);
      values.forEach((value, at) => {
        const { line, shade, number } = rows[at];
        const [size, colour] = [Math.abs(value), value < 0 ? colours.orange : colours.blue];
        const isSeen = size >= LEAST;
        // Of many tokens, most have no line before and none after: they cost nothing.
        if (!isSeen && !rows[at].isSeen) return;
        rows[at].isSeen = isSeen;
        line.setAttribute("visibility", isSeen ? "visible" : "hidden");
        line.setAttribute("y1", y);
        line.setAttribute("stroke", colour);
        line.setAttribute("stroke-opacity", size.toFixed(4));
        shade.setAttribute("fill", colour);
        shade.setAttribute("fill-opacity", (size * 0.5).toFixed(4));
        number.textContent = size < 0.005 ? "" : signed(value, picture.minus);
      });
      const said = summary(values, axes, query);
      svg.setAttribute("aria-label", `${picture.title}. ${said}`);
    },
    /** Scroll to a query, or to a key. */
    reveal(query, key) {
      const box = home.getBoundingClientRect();
      if (svg.getBoundingClientRect().height <= box.height + 4) return;
      home.scrollTop = Math.max(0, (key === undefined ? yOfQuery(query) : yOfKey(key)) - box.height / 2);
    },
  };
}

function signed(value, isDifference) {
  const text = Math.abs(value).toFixed(2).replace(/^0/, "");
  return isDifference ? `${value < 0 ? "−" : "+"}${text}` : text;
}

/** The cells from `rows` and `columns` of a map, pooled to at most `most` each: the largest of each
    block, as a canvas of its own size. */
export function cells(picture, rows, columns, most, colours) {
  const { more, less } = rampsOf(colours);
  const longest = Math.max(rows[1] - rows[0], columns[1] - columns[0]);
  const pool = Math.max(1, Math.ceil(longest / most));
  const [height, width] = [rows, columns].map(([from, to]) => Math.ceil((to - from) / pool));
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [width, height];
  const context = canvas.getContext("2d");
  const image = context.createImageData(width, height);
  const pixels = new Uint32Array(image.data.buffer);
  const { codes, keys } = picture.map;
  const other = picture.minus?.codes;
  const largestCodes = new Int16Array(width * height);
  for (let q = rows[0]; q < rows[1]; q += 1) {
    const line = Math.floor((q - rows[0]) / pool) * width;
    for (let k = columns[0]; k < columns[1]; k += 1) {
      const at = q * keys + k;
      let code = codes[at];
      if (other) {
        const difference = code * code - other[at] * other[at];
        code = Math.round(Math.sign(difference) * Math.sqrt(Math.abs(difference)));
      }
      const cell = line + Math.floor((k - columns[0]) / pool);
      if (Math.abs(code) > Math.abs(largestCodes[cell])) largestCodes[cell] = code;
    }
  }
  for (let at = 0; at < pixels.length; at += 1) {
    const code = largestCodes[at];
    pixels[at] = code < 0 ? less[-code] : more[code];
  }
  context.putImageData(image, 0, 0);
  return { canvas, pool };
}

/** Return what of an axis is shown at a zoom, around a place. */
function windowOf(size, zoom, place) {
  const length = Math.max(1, Math.min(size, Math.ceil(size / 2 ** zoom)));
  const from = Math.min(size - length, Math.max(0, Math.round(place - length / 2)));
  return [from, from + length];
}

/** Draw a matrix as large as its home allows: a canvas of cells under names and marks. */
export function matrixPicture(home, axes, colours, { onQuery, onKey, width }) {
  const canvas = document.createElement("canvas");
  canvas.setAttribute("role", "img");
  const svg = element("svg", { xmlns: SVG, "font-family": FONT.slice(5), "aria-hidden": "true" });
  home.replaceChildren(canvas, svg);
  let [geometry, painted] = [null, { content: [] }];
  const placeOf = (event) => {
    if (!geometry) return null;
    const box = svg.getBoundingClientRect();
    const { left, top, size, rows, columns, cell } = geometry;
    const [x, y] = [event.clientX - box.left - left, event.clientY - box.top - top];
    if (x < 0 || y < 0 || x >= size.width || y >= size.height) return null;
    return [rows[0] + Math.floor(y / cell), columns[0] + Math.floor(x / cell)];
  };
  svg.addEventListener("pointermove", (event) => {
    const place = placeOf(event);
    if (place) onQuery(place[0], false, place[1]);
  });
  svg.addEventListener("click", (event) => {
    const place = placeOf(event);
    if (place) onQuery(place[0], true, place[1]);
  });
  return {
    svg,
    /** The drawn part of the matrix, for a file. */
    get geometry() { return geometry; },
    show(picture, { query, key, locked, zoom, centre }) {
      const [rows, columns] = [axes.queries, axes.keys].map(({ length }, at) =>
        windowOf(length, zoom, centre[at]));
      const counts = [rows, columns].map(([from, to]) => to - from);
      const named = Math.max(...counts) <= MOST_NAMES;
      const [names, tops] = [axes.queries.slice(...rows), axes.keys.slice(...columns)];
      const left = named ? widest(names) + 10 : 4;
      const top = named ? Math.min(110, widest(tops) + 10) : 4;
      const cell = Math.min(26, Math.max(...[(width - left - 4) / counts[1], 1 / 8]));
      const size = { width: counts[1] * cell, height: counts[0] * cell };
      const scale = window.devicePixelRatio || 1;
      // The pointer moves the marks and not the cells.
      const content = [picture.map, picture.minus, ...rows, ...columns, left, scale];
      if (content.some((part, at) => part !== painted.content[at])) {
        const most = Math.ceil((width - left) * scale);
        painted = { content, ...cells(picture, rows, columns, most, colours) };
        [canvas.width, canvas.height] = [size.width, size.height].map((length) =>
          Math.max(1, Math.round(length * scale)));
        const context = canvas.getContext("2d");
        context.imageSmoothingEnabled = false;
        const side = painted.pool * cell * scale;
        const image = painted.canvas;
        context.drawImage(image, 0, 0, image.width * side, image.height * side);
      }
      const { canvas: drawn, pool } = painted;
      for (const [name, value] of Object.entries({ ...size, left, top })) {
        canvas.style[name] = `${value}px`;
      }
      geometry = { left, top, size, rows, columns, cell, drawn, pool };
      const textLine = named ? 0 : 18;
      const w = left + Math.max(size.width, SCALE + 24) + 4;
      const h = top + size.height + textLine + 40;
      setAll(svg, { width: w, height: h, viewBox: `0 0 ${w} ${h}`, "font-size": Math.min(12, cell + 1) });
      svg.replaceChildren();
      element("rect", {
        x: left - 0.5, y: top - 0.5, width: size.width + 1, height: size.height + 1,
        fill: "none", stroke: colours.line,
      }, svg);
      const [qy, kx] = [top + (query - rows[0]) * cell, left + (key - columns[0]) * cell];
      const thickness = Math.max(cell, 2) + 2;
      const marks = {
        fill: "none", stroke: colours.ink,
        "stroke-width": locked ? 1.6 : 1, "stroke-opacity": locked ? 0.95 : 0.55,
      };
      if (query >= rows[0] && query < rows[1]) {
        element("rect", {
          ...marks, x: left - 1, y: qy - 1, width: size.width + 2, height: thickness,
        }, svg);
      }
      if (key >= columns[0] && key < columns[1]) {
        element("rect", {
          ...marks, x: kx - 1, y: top - 1, width: thickness, height: size.height + 2,
          "stroke-dasharray": "2 3",
        }, svg);
      }
      if (named) {
        const style = (isChosen) => ({
          fill: isChosen ? colours.ink : colours.soft, "font-weight": isChosen ? 600 : 400,
        });
        names.forEach((token, at) => element("text", {
          ...style(rows[0] + at === query), "text-anchor": "end", x: left - 6, y: top + (at + 0.5) * cell + 4,
        }, svg, token));
        tops.forEach((token, at) => {
          const x = left + (at + 0.5) * cell + 4;
          element("text", {
            ...style(columns[0] + at === key), transform: `translate(${x} ${top - 6}) rotate(-90)`,
          }, svg, token);
        });
      } else {
        const reads = `${axes.queries[query]} (${axes.at[query]}) reads ${axes.keys[key]} (${key})`;
        element("text", {
          x: left, y: top + size.height + 15, fill: colours.soft, "font-size": 12,
        }, svg, reads);
      }
      drawScale(svg, left, top + size.height + textLine + 10, picture, colours);
      const values = shownValues(picture, query);
      canvas.setAttribute("aria-label", `${picture.title}. ${summary(values, axes, query)}`);
    },
    reveal() {},
  };
}

/** Draw which colour stands for which weight, or difference of weights. */
function drawScale(svg, x, y, picture, colours) {
  const { more, less } = rampsOf(colours);
  const hex = (value) => (value & 255).toString(16).padStart(2, "0");
  const hexOf = (pixel) => `#${[pixel, pixel >> 8, pixel >> 16].map(hex).join("")}`;
  const [from, count] = [picture.minus ? -1 : 0, 32];
  const width = SCALE / count;
  for (let at = 0; at < count; at += 1) {
    const share = from + (1 - from) * ((at + 0.5) / count);
    const code = Math.round(Math.abs(share) * 255);
    const fill = hexOf((share < 0 ? less : more)[code]);
    element("rect", { x: x + at * width, y, width: width + 0.5, height: 8, fill }, svg);
  }
  const ticks = picture.minus ? [-1, -0.25, 0, 0.25, 1] : [0, 0.05, 0.25, 0.5, 1];
  for (const tick of ticks) {
    const place = (Math.sign(tick) * Math.sqrt(Math.abs(tick)) - from) / (1 - from);
    const text = String(tick).replace("-", "−").replace("0.", ".");
    element("text", {
      x: x + place * SCALE, y: y + 21, "text-anchor": "middle", fill: colours.soft, "font-size": 11,
    }, svg, text);
  }
}

/** Draw a head's small picture from the pooled bytes of its layer. */
export function drawSmall(canvas, layer, head, colours) {
  const { rows, columns, codes } = layer;
  const from = head * rows * columns;
  const picture = { map: { codes: codes.subarray(from, from + rows * columns), keys: columns } };
  const { canvas: drawn } = cells(picture, [0, rows], [0, columns], Math.max(rows, columns), colours);
  [canvas.width, canvas.height] = [drawn.width, drawn.height];
  canvas.getContext("2d").drawImage(drawn, 0, 0);
}

