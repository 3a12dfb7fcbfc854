/** The page of a run: its curves, to which rows are added while it trains. */

import { drawCharts } from "./charts.js";
import { onPage } from "./page.js";

let growing = null;

onPage(async ({ run, charts }) => {
  const views = await drawCharts(document.querySelector("main"), charts);
  const last = {};
  for (const chart of charts) {
    for (const { split, step } of chart.layer[0].data?.values ?? chart.data.values) {
      last[split] = Math.max(last[split] ?? -1, step);
    }
  }
  growing = { run, views, last, columns: charts.map((chart) => chart.usermeta.column) };
});

/** Add the rows that the run has written since the last ones that are shown. */
async function grow() {
  const { run, views, last, columns } = growing;
  const response = await fetch(`/api/rows?${new URLSearchParams({ run, after: JSON.stringify(last) })}`);
  if (!response.ok || growing.run !== run) return;
  const rowsBySplit = await response.json();
  for (const [split, rows] of Object.entries(rowsBySplit)) {
    if (!rows.step.length) continue;
    last[split] = rows.step.at(-1);
    columns.forEach((column, at) => {
      if (!(column in rows)) return;
      const added = rows.step.map((step, n) => ({ split, step, value: rows[column][n] }))
        .filter(({ value }) => value !== null);
      views[at].insert("rows", added).runAsync();
    });
  }
}

let shownProgress = null;
document.addEventListener("attnlab:live", ({ detail }) => {
  const progress = growing && detail.progress[growing.run];
  if (!progress || progress.progress === shownProgress) return;
  shownProgress = progress.progress;
  grow();
});
