/** Charts: drawn by Vega from the specifications in the page, chosen from, and saved as files. */

// With `ast`, Vega interprets its expressions, so the page may forbid evaluated code. Its styles
// stand in page.css, as a served page has no style elements either.
const options = {
  renderer: "svg", ast: true, actions: false, mode: "vega-lite", defaultStyle: false,
  tooltip: { disableDefaultStyle: true },
};

/** Draw a chart in an element, and return its view. */
export async function draw(element, chart) {
  const { view } = await vegaEmbed(element, chart, options);
  return view;
}

/** Draw charts in their places, and return the views in their order. An arm that `chooser` chooses
    comes forward in all of them, and one that is clicked in a chart is chosen; a clicked row with an
    `href`, or for which `addressOf` has one, leads there. */
export async function drawCharts(element, charts, { chooser, addressOf } = {}) {
  const views = [];
  chooser?.onChange((chosen) => {
    for (const view of views) {
      if ("chosen" in view.getState().signals) view.signal("chosen", [...chosen]).runAsync();
    }
  });
  await Promise.all(charts.map(async (chart, at) => {
    const home = element.querySelector(`[data-chart="${at}"]`);
    const view = await draw(home.querySelector("[data-drawing]"), chart);
    view.addEventListener("click", (_, item) => {
      const address = item?.datum && (item.datum.href ?? addressOf?.(item.datum));
      if (address) location.assign(address);
      else if (item?.datum?.arm) chooser?.toggle(item.datum.arm);
    });
    views[at] = view;
    for (const button of home.querySelectorAll("[data-save]")) {
      button.addEventListener("click", () => save(view, chart, button.dataset.save));
    }
  }));
  return views;
}

/** Save a chart as a file: "svg", "png" or "csv". */
async function save(view, chart, kind) {
  const content = {
    svg: async () => new Blob([onWhite(await view.toSVG())], { type: "image/svg+xml" }),
    png: async () => pictureOf(await view.toCanvas(2)),
    csv: async () => new Blob([rowsAsCsv(chart)], { type: "text/csv" }),
  }[kind];
  const link = document.createElement("a");
  link.download = `${fileName(chart)}.${kind}`;
  link.href = URL.createObjectURL(await content());
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href));
}

function onWhite(svg) {
  return svg.replace(/>/, '><rect width="100%" height="100%" fill="white"/>');
}

function pictureOf(drawing) {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [drawing.width, drawing.height];
  const context = canvas.getContext("2d");
  context.fillStyle = "white";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(drawing, 0, 0);
  return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
}

/** Return the rows of a chart as CSV: the first of its tables with the most columns. */
function rowsAsCsv(chart) {
  const inline = [chart, ...(chart.layer ?? [])].map((layer) => layer.data?.values);
  const tables = [...Object.values(chart.datasets ?? {}), ...inline].filter(Boolean)
    .map((rows) => (typeof rows === "string" ? JSON.parse(rows) : rows));
  const columnsOf = (rows) => Object.keys(rows[0] ?? {});
  const rows = tables.reduce(
    (most, other) => (columnsOf(other).length > columnsOf(most).length ? other : most), []);
  const columns = columnsOf(rows);
  const lines = rows.map((row) => columns.map((column) => cellOfCsv(row[column])).join(","));
  return `${[columns.map(cellOfCsv).join(","), ...lines].join("\n")}\n`;
}

export function cellOfCsv(value) {
  const text = String(value ?? "");
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

function fileName(chart) {
  const title = chart.title?.text ?? chart.title ?? "figure";
  return String(title).replaceAll(/[^\w.-]+/g, "-");
}
