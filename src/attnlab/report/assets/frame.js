/** What every served page does: follow its forms without a jump, stay up to date, and send changes. */

const [token, loadedVersion] = ["token", "version"].map(
  (name) => document.querySelector(`meta[name="attnlab-${name}"]`).content);
const EVERY = 1500;

/** Load another view of this page, and put its content in place of what is shown. */
async function show(address, { keepFocus = false } = {}) {
  const response = await fetch(address, { headers: { accept: "text/html" } });
  const loaded = new DOMParser().parseFromString(await response.text(), "text/html");
  const focused = keepFocus && document.activeElement?.id;
  // A field that somebody types into stays as it is.
  const typed = focused && document.activeElement.value;
  for (const selector of ["main", "#data", "#selection"]) {
    const [old, fresh] = [document, loaded].map((of) => of.querySelector(selector));
    if (old && fresh) old.replaceWith(document.adoptNode(fresh));
  }
  document.title = loaded.title;
  if (focused) {
    const again = document.getElementById(focused);
    if (again && typed !== undefined && "value" in again) again.value = typed;
    again?.focus();
  }
  document.dispatchEvent(new Event("attnlab:page"));
}

/** Return the address of what a form asks for, without the fields that are empty. */
function addressOf(form) {
  const address = new URL(form.action);
  const fields = [...new FormData(form)].filter(([, value]) => value !== "");
  address.search = new URLSearchParams(fields);
  return address;
}

function go(address) {
  history.pushState(null, "", address);
  show(address, { keepFocus: true });
}

document.addEventListener("submit", (event) => {
  if (event.target.method !== "get") return;
  event.preventDefault();
  go(addressOf(event.target));
});
document.addEventListener("change", (event) => {
  const form = event.target.closest("form[data-follow]");
  if (form) go(addressOf(form));
});
document.addEventListener("click", (event) => {
  const link = event.target.closest("a[data-follow]");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
  event.preventDefault();
  go(new URL(link.href));
});
window.addEventListener("popstate", () => show(location.href));

/** Send a change to the server; the page then shows what is recorded. */
async function send(change) {
  const response = await fetch("/annotate", {
    method: "POST",
    headers: { "content-type": "application/json", "x-attnlab-token": token },
    body: JSON.stringify(change),
  });
  const notice = document.querySelector("[data-notice]");
  if (!response.ok) notice.textContent = await response.text();
  else await show(location.href);
}

document.addEventListener("submit", (event) => {
  const form = event.target.closest("form[data-annotate]");
  if (!form) return;
  event.preventDefault();
  const runs = form.dataset.runs ? JSON.parse(form.dataset.runs)
    : [...document.querySelectorAll("input[name=run]:checked")].map((box) => box.value);
  send({ kind: event.submitter?.value ?? form.dataset.annotate, text: form.elements.text?.value ?? "", runs });
});

/** Show the progress of runs that train, and load the page again where more than that changed. */
let version = loadedVersion;
async function update() {
  if (!document.hidden) {
    try {
      const response = await fetch(`/api/live?version=${version}`);
      const live = await response.json();
      document.documentElement.classList.remove("offline");
      if (live.version !== version) await show(location.href, { keepFocus: true });
      version = live.version;
      for (const [run, { progress, text }] of Object.entries(live.progress)) {
        for (const bar of document.querySelectorAll(`progress[data-run="${CSS.escape(run)}"]`)) {
          bar.value = progress;
          bar.title = text;
        }
        for (const place of document.querySelectorAll(`[data-progress="${CSS.escape(run)}"]`)) {
          place.textContent = text;
        }
      }
      document.dispatchEvent(new CustomEvent("attnlab:live", { detail: live }));
    } catch {
      document.documentElement.classList.add("offline");
    }
  }
  setTimeout(update, EVERY);
}
update();
