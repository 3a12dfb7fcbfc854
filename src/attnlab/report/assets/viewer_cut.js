/** What cutting does: what the record's evidence found, and what is measured on request. */

import { nameOf } from "./viewer_grid.js";

const EVERY = 700;
const MOST_SHOWN = 6;

function paragraph(text, kind = "") {
  const made = document.createElement("p");
  made.textContent = text;
  if (kind) made.className = kind;
  return made;
}

/** Build the panel; `context()` says what is shown: run, probe, layer, head, and positions. */
export function buildCutting(root, { fault, named, context, onValues }) {
  const find = (name) => root.querySelector(`[data-${name}]`);
  const [recorded, note, buttons, measured] = ["recorded", "cut-note", "cuts", "measured"].map(find);
  const token = document.querySelector('meta[name="attnlab-token"]').content;
  const answers = new Map();
  let busy = null;

  function button(text, ask) {
    const made = document.createElement("button");
    made.type = "button";
    made.className = "act";
    made.textContent = text;
    made.disabled = busy !== null;
    made.addEventListener("click", () => start(ask));
    return made;
  }

  async function start(ask) {
    busy = { ...ask, state: "running", seconds: 0, error: "" };
    show();
    const response = await fetch("/measure", {
      method: "POST",
      headers: { "content-type": "application/json", "x-attnlab-token": token },
      body: JSON.stringify(ask.request),
    });
    if (!response.ok) return finish(ask, { state: "failed", error: (await response.text()).trim() });
    return follow(ask, await response.json());
  }

  async function follow(ask, job) {
    while (job.state === "running") {
      busy = { ...ask, ...job };
      showMeasured();
      await new Promise((resolve) => setTimeout(resolve, EVERY));
      const response = await fetch(`/api/measurement?job=${job.job}`);
      job = response.ok ? await response.json()
        : { state: "failed", error: (await response.text()).trim() };
    }
    finish(ask, job);
  }

  function finish(ask, job) {
    busy = null;
    const isOfValues = job.state === "done" && ask.request.kind === "values";
    answers.delete(ask.key);
    if (!isOfValues) answers.set(ask.key, { ...ask, ...job });
    show();
    if (isOfValues) onValues(job.answer.step);
  }

  function requests() {
    const { run, probe, layer, head, query, key, queryToken, keyToken } = context();
    const base = { run, probe, layer: layer.key };
    const name = nameOf(layer, head);
    const edge = { ...base, kind: "edge", query, key };
    const of = (request) => ({ request, key: JSON.stringify(request) });
    return [
      [`cut ${queryToken} → ${keyToken} in ${name}`, of({ ...edge, head })],
      [`cut ${queryToken} → ${keyToken} in all heads`, of({ ...edge, head: null })],
      [`take out ${name}`, of({ run, probe, layer: layer.key, kind: "head", head })],
    ].map(([text, ask]) => [text, { ...ask, text }]);
  }

  function showMeasured() {
    const parts = [];
    if (busy) {
      parts.push(paragraph(`${busy.text}: measuring, ${Math.round(busy.seconds)} s …`, "note"));
    }
    const latest = [...answers.values()].reverse().slice(0, MOST_SHOWN);
    parts.push(...latest.map(drawAnswer));
    measured.replaceChildren(...parts);
  }

  /** Show what is there for the head and edge that are shown now. */
  function show() {
    const { layer, head } = context();
    const texts = named[nameOf(layer, head)] ?? [];
    recorded.replaceChildren(...(texts.length ? texts.map((text) => paragraph(text))
      : [paragraph("The run's evidence took out neither this head nor an edge of it.", "note")]));
    const reason = layer.cut || fault;
    note.textContent = reason || "On the last checkpoint, by a process of its own: some ten seconds.";
    buttons.replaceChildren(...(reason ? [] : requests().map(([text, ask]) => button(text, ask))));
    showMeasured();
  }

  return {
    show,
    measureValues() {
      const { run, probe, layer } = context();
      const request = { run, probe, layer: layer.key, kind: "values" };
      if (!busy) start({ request, key: JSON.stringify(request), text: "norms of values" });
    },
    get isBusy() { return busy !== null; },
  };
}

function drawAnswer({ text, state, error, answer, request }) {
  const box = document.createElement("div");
  box.className = "measured";
  box.append(paragraph(text, "measured-title"));
  if (state === "failed") {
    box.append(paragraph(error, "fault"));
    return box;
  }
  const rows = request.kind === "head"
    ? [[answer.metric, answer.before, answer.after]]
    : answer.answers.map(({ output, before, after }) => [output, before, after]);
  const table = document.createElement("table");
  table.append(row("th", [request.kind === "head" ? answer.split : "answer", "before", "after"]));
  for (const [name, before, after] of rows) {
    table.append(row("td", [name, before.toFixed(3), after.toFixed(3)]));
  }
  const heads = `${answer.heads} head${answer.heads > 1 ? "s" : ""}`;
  const where = request.kind === "head" ? "" : `${heads}, this text alone; `;
  box.append(table, paragraph(`${where}checkpoint of step ${answer.step}, n = 1 run`, "note"));
  return box;
}

function row(kind, texts) {
  const made = document.createElement("tr");
  texts.forEach((text, at) => {
    const cell = document.createElement(kind);
    cell.textContent = text;
    if (at) cell.className = "count";
    made.append(cell);
  });
  return made;
}
