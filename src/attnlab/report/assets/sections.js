/** A page of sections: cards of attention and charts, from the data in the page. */

import { drawCards } from "./attention.js";
import { drawCharts } from "./charts.js";
import { onPage } from "./page.js";

onPage(async (data) => {
  await Promise.all(data.sections.map(async (content, at) => {
    const element = document.querySelector(`[data-section="${at}"]`);
    if (content.cards.length) await drawCards(element, content, data.pictures);
    await drawCharts(element, content.charts);
  }));
});
