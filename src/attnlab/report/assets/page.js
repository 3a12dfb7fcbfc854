/** When a page is there, and when it has been drawn. */

/** Call a function with the data of the page, now and whenever the page's content is replaced. */
export function onPage(start) {
  const run = async () => {
    delete document.documentElement.dataset.ready;
    await start(JSON.parse(document.getElementById("data").textContent));
    document.documentElement.dataset.ready = "";
  };
  document.addEventListener("attnlab:page", run);
  run();
}
