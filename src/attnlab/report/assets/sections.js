/** A page of sections: cards of attention and charts, from the data in the page. */

import { drawCards } from "./attention.js";
import { drawCharts } from "./charts.js";
import { buildChooser } from "./chooser.js";
import { onPage } from "./page.js";
import { drawParallel } from "./parallel.js";

onPage(async (data) => {
  await Promise.all(data.sections.map(async (content, at) => {
    const element = document.querySelector(`[data-section="${at}"]`);
    const chooser = buildChooser(element);
    const parallel = element.querySelector("[data-parallel]");
    if (parallel) drawParallel(parallel, content.parallel, chooser);
    if (content.cards.length) await drawCards(element, content, data.pictures);
    // A server has pages of runs, to which the curve of a single seed leads.
    const addressOf = ({ arm, seed, run = content.runs?.[arm]?.[seed] }) => {
      return run && `/run?${new URLSearchParams({ run })}`;
    };
    await drawCharts(element, content.charts, { chooser, addressOf });
  }));
});
