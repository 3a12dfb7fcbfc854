/** Cards with pictures of attention: one token asks, at one step, in one head of one seed. */

import { draw } from "./charts.js";

function unpack(map) {
  return { ...map, codes: Uint8Array.from(atob(map.codes), (character) => character.charCodeAt(0)) };
}

/** The weights of one head at one step, and the token that they are asked from. */
function read(history, head, query, step) {
  const [at, number] = history.heads[head];
  const { queries, heads, codes } = history.maps[at];
  const found = [query, history.asked].map((q) => queries.indexOf(q)).find((row) => row >= 0);
  const row = found ?? queries.length - 1;
  const frame = Math.max(0, history.steps.findLastIndex((recorded) => recorded <= step));
  const start = ((frame * heads + number) * queries.length + row) * history.keys;
  const weights = Array.from(codes.subarray(start, start + history.keys), (c) => (c / 255) ** 2);
  return { query: queries[row], queries, weights };
}

/** Draw one picture; return the function that shows it at a step. */
async function drawPicture(element, chart, card, history) {
  // Vega marks the rows that it is given as its own, so it only gets copies.
  const rows = chart.data.values;
  const copied = { ...chart, data: { name: "weights", values: rows.map((row) => ({ ...row })) } };
  const view = await draw(element, copied);
  let shown = null;
  const ask = (query) => {
    card.query = query;
    card.draw();
  };
  view.addEventListener("click", (_, item) => {
    if (item?.mark.name === "reach_marks" && shown.queries.includes(item.datum.key)) {
      ask(item.datum.key);
    }
  });
  element.addEventListener("keydown", (event) => {
    const at = shown.queries.indexOf(shown.query);
    const last = shown.queries.length - 1;
    const to = { ArrowDown: at + 1, ArrowRight: at + 1, ArrowUp: at - 1, ArrowLeft: at - 1,
      Home: 0, End: last }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    ask(shown.queries[Math.min(last, Math.max(0, to))]);
  });
  return async (step) => {
    shown = read(history(), card.head, card.query, step);
    const drawn = rows.map((row, at) => ({ ...row, weight: shown.weights[at], query: shown.query }));
    const most = [...drawn].sort((a, b) => b.weight - a.weight).slice(0, 3);
    const said = most.map((row) => `${row.token} ${row.weight.toFixed(2)}`).join(", ");
    element.setAttribute("aria-valuenow", shown.query + 1);
    element.setAttribute("aria-valuetext", `${rows[shown.query].token}: ${said}`);
    element.ariaBusy = "true";
    await view.data("weights", drawn).runAsync();
    element.ariaBusy = "false";
  };
}

/** Build the card in an element; return it with `draw`, which shows it at the chosen step. */
async function buildCard(home, { pictures, seeds }, allPictures, step) {
  const histories = seeds.map((view) =>
    view.histories.map((history) => ({ ...history, maps: history.maps.map(unpack) })));
  const [head, seed] = ["head", "seed"].map((of) => home.querySelector(`[data-choose=${of}]`));
  const card = { head: seeds[0].head, query: histories[0][0].asked, draw() {} };
  let chosen = 0;
  const draws = await Promise.all(
    pictures.map((of, n) => drawPicture(
      home.querySelector(`[data-history="${n}"]`), allPictures[of], card,
      () => histories[chosen][n])));
  card.draw = () => Promise.all(draws.map((show) => show(step())));
  // A browser may restore what was chosen before the page was loaded again.
  head.value = card.head;
  head.addEventListener("change", () => {
    card.head = Number(head.value);
    card.draw();
  });
  if (seed) {
    seed.value = 0;
    seed.addEventListener("change", () => {
      chosen = Number(seed.value);
      card.head = seeds[chosen].head;
      head.value = card.head;
      card.draw();
    });
  }
  return card;
}

/** Draw the cards of a section, those that are folded away when they are opened first. */
export async function drawCards(element, content, pictures) {
  const slider = element.querySelector("input[type=range]");
  const steps = content.steps;
  const step = () => steps[slider ? Number(slider.value) : steps.length - 1];
  const cards = [];
  const home = (at) => element.querySelector(`[data-card="${at}"]`);
  const build = async (at) => {
    const card = await buildCard(home(at), content.cards[at], pictures, step);
    cards.push(card);
    return card;
  };
  const isHidden = (at) => home(at).closest("details");
  const places = content.cards.map((_, at) => at);
  await Promise.all(places.filter((at) => !isHidden(at)).map(build));
  const more = element.querySelector("[data-more-cards]");
  more?.addEventListener("toggle", async () => {
    const opened = await Promise.all(places.filter(isHidden).map(build));
    await Promise.all(opened.map((card) => card.draw()));
    more.setAttribute("data-ready", "");
  }, { once: true });
  const drawAll = () => Promise.all(cards.map((card) => card.draw()));
  if (slider) {
    const output = element.querySelector("[data-step]");
    slider.value = slider.max;
    slider.addEventListener("input", () => {
      output.textContent = step();
      slider.setAttribute("aria-valuetext", `pictures after step ${step()}`);
      drawAll();
    });
  }
  await drawAll();
}
