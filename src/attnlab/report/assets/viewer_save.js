/** Files of what is shown: a picture as SVG or PNG on white, and its numbers as CSV. */

import { cellOfCsv } from "./charts.js";
import { weightOf } from "./viewer_data.js";
import { SVG, element, matrixPicture, palette, setAll, tokenPicture } from "./viewer_draw.js";

const [GAP, LINE, MOST_WIDTH] = [24, 16, 90];

/** Draw the pictures side by side with their titles and the caption, in the colours of a page. */
function drawing({ pictures, axes, state, caption, roleColours, kind }) {
  const colours = palette("light");
  const svg = element("svg", { xmlns: SVG, "font-family": "system-ui, sans-serif", "font-size": 13 });
  element("rect", { width: "100%", height: "100%", fill: "#ffffff" }, svg);
  let [x, height] = [GAP, 0];
  for (const picture of pictures) {
    const home = document.createElement("div");
    const draw = kind === "matrix" ? matrixPicture : tokenPicture;
    const drawn = draw(home, axes, colours, { onQuery() {}, onKey() {}, roleColours, width: 640 });
    drawn.show(picture, state);
    const [width, of] = ["width", "height"].map((name) => Number(drawn.svg.getAttribute(name)));
    const group = element("g", { transform: `translate(${x} ${GAP + LINE})` }, svg);
    element("text", { x: 0, y: -8, "font-weight": 600, fill: colours.ink }, group, picture.title);
    if (drawn.geometry) {
      const { left, top, cell, drawn: image, pool, size } = drawn.geometry;
      const clip = element("svg", { x: left, y: top, ...size }, group);
      element("image", {
        href: image.toDataURL(), width: image.width * pool * cell, height: image.height * pool * cell,
        preserveAspectRatio: "none", "image-rendering": "pixelated",
      }, clip);
    }
    const copy = element("g", { "font-size": drawn.svg.getAttribute("font-size") }, group);
    copy.append(...drawn.svg.cloneNode(true).childNodes);
    copy.querySelector("[data-reach]")?.remove();
    x += Math.max(width, picture.title.length * 7) + GAP;
    height = Math.max(height, of);
  }
  const lines = wrapped(caption);
  const top = GAP + LINE + height + LINE;
  lines.forEach((line, at) => element("text", {
    x: GAP, y: top + at * LINE, fill: colours.soft, "font-size": 11.5,
  }, svg, line));
  const size = { width: Math.max(x, 560), height: top + lines.length * LINE + 4 };
  setAll(svg, { ...size, viewBox: `0 0 ${size.width} ${size.height}` });
  return { svg, ...size };
}

function wrapped(text) {
  const lines = [""];
  for (const word of text.split(" ")) {
    if (lines.at(-1) && lines.at(-1).length + word.length > MOST_WIDTH) lines.push("");
    lines[lines.length - 1] += `${lines.at(-1) ? " " : ""}${word}`;
  }
  return lines;
}

function asSvg({ svg }) {
  return new Blob([new XMLSerializer().serializeToString(svg)], { type: "image/svg+xml" });
}

async function asPng(drawn) {
  const address = URL.createObjectURL(asSvg(drawn));
  const image = new Image();
  image.src = address;
  await image.decode();
  const canvas = document.createElement("canvas");
  const scale = Math.min(2, 8000 / Math.max(drawn.width, drawn.height));
  [canvas.width, canvas.height] = [drawn.width * scale, drawn.height * scale];
  canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
  URL.revokeObjectURL(address);
  return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
}

/** The numbers of the pictures: a row for each query and key. */
function numbers({ pictures, axes }) {
  const names = pictures.map(({ title }) => title);
  const values = pictures.map(({ map, minus }) => (at) =>
    weightOf(map.codes[at]) - (minus ? weightOf(minus.codes[at]) : 0));
  const rows = [["query", "query_token", "key", "key_token", ...names].map(cellOfCsv).join(",")];
  axes.queries.forEach((queryToken, row) => axes.keys.forEach((keyToken, key) => {
    const at = row * axes.keys.length + key;
    const weights = values.map((of) => Number(of(at).toFixed(6)));
    rows.push([axes.at[row], queryToken, key, keyToken, ...weights].map(cellOfCsv).join(","));
  }));
  return `${rows.join("\n")}\n`;
}

/** Save what is shown as a file: "svg", "png" or "csv". */
export async function save(kind, shown) {
  const blob = await {
    csv: () => new Blob([numbers(shown)], { type: "text/csv" }),
    svg: () => asSvg(drawing(shown)),
    png: () => asPng(drawing(shown)),
  }[kind]();
  const link = document.createElement("a");
  link.download = `${shown.name.replaceAll(/[^\w.-]+/g, "-")}.${kind}`;
  link.href = URL.createObjectURL(blob);
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href));
}
