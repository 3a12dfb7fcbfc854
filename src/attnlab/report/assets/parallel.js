/** Parallel coordinates: a line for each arm across its factors, costs and metric. Ranges that are
    marked on the axes choose arms, in every chart of the section. */

const SVG = "http://www.w3.org/2000/svg";
const HEIGHT = 260, TOP = 34, BOTTOM = 18, SIDE = 70, LEAST_GAP = 120;
/** The number of steps from the lowest to the highest place of an axis that keys move by. */
const KEY_STEPS = 20;

function make(kind, attributes = {}, text) {
  const element = document.createElementNS(SVG, kind);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

function short(number) {
  return Number(number.toPrecision(4)).toString();
}

/** An axis with `place`, which maps a value to 0 (below) ... 1 (above), and its labels. */
function readAxis({ title, values, levels }) {
  if (levels) {
    const last = Math.max(1, levels.length - 1);
    const place = (value) => value / last;
    return { title, values, place, labels: levels.map((text, n) => ({ text, at: place(n) })) };
  }
  const known = values.filter((value) => value !== null);
  const [low, high] = [Math.min(...known), Math.max(...known)];
  const isWide = low > 0 && high / low >= 100;
  const scale = isWide ? Math.log10 : (value) => value;
  const range = scale(high) - scale(low) || 1;
  const place = (value) => (value === null ? null : (scale(value) - scale(low)) / range);
  return { title, values, place, labels: [low, high].map((value) => ({ text: short(value), at: place(value) })) };
}

/** Draw the arms in an element, and choose those within the marked ranges by `chooser.set`. */
export function drawParallel(element, { axes: given, arms }, chooser) {
  const axes = given.map(readAxis);
  const ranges = axes.map(() => null);
  const width = Math.max(element.clientWidth, 2 * SIDE + LEAST_GAP * (axes.length - 1));
  const xOf = (n) => SIDE + (n * (width - 2 * SIDE)) / Math.max(1, axes.length - 1);
  const yOf = (at) => HEIGHT - BOTTOM - at * (HEIGHT - TOP - BOTTOM);
  const placeOf = (y) => Math.min(1, Math.max(0, (HEIGHT - BOTTOM - y) / (HEIGHT - TOP - BOTTOM)));
  const svg = make("svg", { width, height: HEIGHT, viewBox: `0 0 ${width} ${HEIGHT}`, class: "parallel" });
  const lines = arms.map(({ title, colour }, arm) => {
    const points = axes.map((axis, n) => [n, axis.place(axis.values[arm])])
      .filter(([, at]) => at !== null).map(([n, at]) => `${xOf(n)},${yOf(at)}`);
    const line = make("polyline", { points: points.join(" "), class: "arm" });
    line.dataset.arm = title;
    if (colour) line.style.stroke = colour;
    line.append(make("title", {}, title));
    line.addEventListener("click", () => chooser.toggle(title));
    svg.append(line);
    return line;
  });
  const status = document.createElement("p");
  status.className = "note";
  status.setAttribute("role", "status");

  const isInside = (arm) => axes.every((axis, n) => {
    const at = axis.place(axis.values[arm]);
    return !ranges[n] || (at !== null && ranges[n][0] - 1e-9 <= at && at <= ranges[n][1] + 1e-9);
  });
  const mark = () => {
    const inside = arms.filter((_, arm) => isInside(arm)).map(({ title }) => title);
    const isMarked = ranges.some(Boolean);
    chooser.set(isMarked ? inside : []);
    status.textContent = isMarked ? `${inside.length} of ${arms.length} arms are chosen` : "";
    marks.forEach((rectangle, n) => {
      const [low, high] = ranges[n] ?? [0, 0];
      rectangle.setAttribute("y", yOf(high));
      rectangle.setAttribute("height", Math.max(ranges[n] ? 4 : 0, yOf(low) - yOf(high)));
    });
  };
  const marks = axes.map((axis, n) => {
    const group = make("g", { tabindex: 0, role: "group", class: "axis",
      "aria-label": `${axis.title}: arrow keys move the lower end of the range, with shift the upper end; escape clears it` });
    group.append(make("line", { x1: xOf(n), x2: xOf(n), y1: yOf(0), y2: yOf(1) }));
    group.append(make("text", { x: xOf(n), y: 14, "text-anchor": "middle", class: "title" }, axis.title));
    const isLast = n === axes.length - 1;
    for (const { text, at } of axis.labels) {
      group.append(make("text", { x: xOf(n) + (isLast ? 8 : -8), y: yOf(at) + 4,
        "text-anchor": isLast ? "start" : "end" }, text.length > 16 ? `${text.slice(0, 15)}…` : text));
    }
    const rectangle = make("rect", { x: xOf(n) - 7, width: 14, y: 0, height: 0, class: "range" });
    const handle = make("rect", { x: xOf(n) - 14, width: 28, y: TOP - 6, height: HEIGHT - TOP - BOTTOM + 12, class: "handle" });
    group.append(rectangle, handle);
    listen(group, handle, n);
    svg.append(group);
    return rectangle;
  });

  function listen(group, handle, n) {
    let start = null;
    const yOfEvent = (event) => placeOf(event.clientY - svg.getBoundingClientRect().top);
    handle.addEventListener("pointerdown", (event) => {
      handle.setPointerCapture(event.pointerId);
      start = yOfEvent(event);
    });
    handle.addEventListener("pointermove", (event) => {
      if (start === null) return;
      const end = yOfEvent(event);
      ranges[n] = [Math.min(start, end), Math.max(start, end)];
      mark();
    });
    handle.addEventListener("pointerup", (event) => {
      if (start !== null && Math.abs(yOfEvent(event) - start) < 0.02) {
        // A click marks the label beside it, or clears the axis where it was marked.
        const near = axes[n].labels.find(({ at }) => Math.abs(at - start) < 0.06);
        ranges[n] = near && !ranges[n]?.includes(near.at - 0.02) ? [near.at - 0.02, near.at + 0.02] : null;
        mark();
      }
      start = null;
    });
    group.addEventListener("keydown", (event) => {
      const step = { ArrowUp: 1, ArrowDown: -1 }[event.key];
      if (event.key === "Escape") ranges[n] = null;
      else if (!step) return;
      else {
        const range = ranges[n] ?? [0, 1];
        const end = event.shiftKey ? 1 : 0;
        range[end] = Math.min(1, Math.max(0, range[end] + step / KEY_STEPS));
        ranges[n] = [Math.min(...range), Math.max(...range)];
      }
      event.preventDefault();
      mark();
    });
  }

  chooser.onChange((chosen) => {
    for (const line of lines) {
      line.classList.toggle("chosen", chosen.has(line.dataset.arm));
      line.classList.toggle("faded", chosen.size > 0 && !chosen.has(line.dataset.arm));
    }
  });
  element.replaceChildren(svg, status);
}
