/** What the page of a run's attention opens with, what stands beside, and what a picture is called. */

import { nameOf } from "./viewer_grid.js";

export const WEIGHTS = {
  raw: "weights as recorded, off by at most .004",
  value: "value-weighted: norms of what is read, as shares of a row",
  rollout: "rollout: the share of each input, over all attention layers up to this one",
};
const KINDS = {
  mixing: "; its mixing matrix, as shares of absolute values",
  traced: "; traced, as it is not linear in its values",
};

/** What the address says; what it does not say, or says of what there is not, as it opens best: at
    the head that the evidence names, after the last step. */
export function firstState({ view, layers, axes, steps, first, named, measures }) {
  const attending = layers.filter((layer) => layer.kind === "attention");
  const evident = headsOf(attending).find(({ name }) => named[name]);
  const stated = layers.find((layer) => layer.key === view.layer);
  const layer = stated ?? evident?.layer ?? layers.find(({ key }) => key === first);
  const isHead = view.head !== "" && layer.heads.includes(Number(view.head));
  const firstHead = layer === evident?.layer ? evident.head : layer.heads[0];
  const placeIn = ({ length }, text) =>
    (/^\d+$/.test(text) && Number(text) < length ? Number(text) : null);
  const { queries, keys } = axes[layer.axes];
  const isStep = view.step !== "" && steps.includes(Number(view.step));
  return {
    layer: layer.key,
    head: isHead ? Number(view.head) : firstHead,
    step: String(isStep ? Number(view.step) : steps.at(-1)),
    query: placeIn(queries, view.query),
    key: placeIn(keys, view.key),
    view: view.view === "matrix" ? "matrix" : "tokens",
    weights: view.weights in WEIGHTS ? view.weights : "raw",
    sort: measures.includes(view.sort.replace(/^-/, "")) ? view.sort : "",
    zoom: 0,
    hovered: null,
  };
}

/** All heads of some layers with their names. */
export function headsOf(layers) {
  return layers.flatMap((layer) =>
    layer.heads.map((head) => ({ layer, head, name: nameOf(layer, head) || layer.key })));
}

/** The head that the address names as the other one, else the first. */
export function otherHead({ layers, view }) {
  const heads = headsOf(layers);
  return heads.find(({ name }) => name === view.other) ?? heads[0];
}

/** What is fetched of the run that is shown, or of what stands beside it. */
export function request(data, state, side = "a") {
  const { run, probe, view, other, steps } = data;
  const { step, layer, head, weights } = state;
  const query = { run, probe, step, layer, head, weights };
  if (side === "b" && view.against === "run") {
    const earlier = other.steps.filter((recorded) => recorded <= Number(step));
    Object.assign(query, { run: other.run, step: String(earlier.at(-1) ?? other.steps[0]) });
  }
  if (side === "b" && view.against === "step") query.step = view.other || String(steps[0]);
  if (side === "b" && view.against === "head") {
    const chosen = otherHead(data);
    Object.assign(query, { layer: chosen.layer.key, head: chosen.head });
  }
  // A rollout is of the mean of all heads.
  if (weights === "rollout") delete query.head;
  return query;
}

/** Why nothing stands beside; empty where something does, null where nothing was asked for. */
export function faultOfOther(data, layer) {
  const { view, other } = data;
  if (!view.against) return null;
  if (view.against === "run") return other ? layer.other : "Choose the other run.";
  const isOfOtherTokens = view.against === "head" && otherHead(data).layer.axes !== layer.axes;
  return isOfOtherTokens ? "The other head reads other tokens." : "";
}

/** Why the record has no such weights of what is asked for; empty where it has. */
export function missingWeights({ noValues, valuesAt, run }, layer, requests) {
  const [{ weights }] = requests;
  if (weights === "rollout") return layer.rollout;
  if (weights !== "value") return "";
  if (layer.kind !== "attention") return `${layer.name} does not attend: it has no values of heads.`;
  if (valuesAt === null) return noValues;
  const other = requests.find((query) => query.run !== run);
  if (other) return "Not recorded: norms of values were measured of this run alone.";
  return requests.every(({ step }) => Number(step) === valuesAt) ? ""
    : `Not recorded: norms of values were measured on the last checkpoint, of step ${valuesAt}.`;
}

export function headTitle(layer, { head, weights }) {
  if (layer.kind === "influence") return layer.name;
  return `${layer.name}, ${weights === "rollout" ? "mean of heads" : `head ${head}`}`;
}

/** The titles of the pictures: of one, or of A, B and their difference. */
export function titlesOf(data, layer, state, requests) {
  const name = nameOf(layer, state.head) || "influence";
  if (requests.length < 2) return [name];
  const [first, second] = {
    run: requests.map(({ run }) => run),
    step: requests.map(({ step }) => `step ${step}`),
    head: [name, otherHead(data).name],
  }[data.view.against];
  return [`A: ${first}`, `B: ${second}`, "A − B"];
}

/** What is shown, in one sentence that goes with every picture and file. */
export function captionOf(data, layer, state, requests) {
  const { against } = data.view;
  const isOfHead = state.weights !== "rollout" && layer.kind !== "influence";
  const name = isOfHead ? ` (${nameOf(layer, state.head)})` : "";
  const parts = [
    `${data.run}, after step ${state.step}`,
    `${headTitle(layer, state)}${name}${KINDS[layer.kind] ?? ""}`,
    `probe “${data.probe}”`,
    "n = 1 run",
    WEIGHTS[state.weights],
  ];
  if (requests.length > 1) {
    const [, { run, step }] = requests;
    const second = {
      run: `${run}, after step ${step}`, step: `after step ${step}`, head: otherHead(data).name,
    }[against];
    parts.push(`B: ${second}`);
  }
  const shading = state.view === "matrix" ? "Shaded by the root of the weight."
    : "Lines are as opaque as their weight.";
  const isOfRuns = requests.length > 1 && against === "run";
  const order = isOfRuns
    ? " Heads of two runs have no common order: the same number need not be the same head." : "";
  return `${parts.join("; ")}. ${shading}${order}`;
}
