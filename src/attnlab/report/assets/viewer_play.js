/** Play: step after step, until the last one. */

const EVERY = 450;

/** Let a button play and pause; `next()` shows the next step and returns whether there was one. */
export function buildPlay(button, { rewind, next }) {
  let timer = null;
  const show = (text, label) => {
    button.textContent = text;
    button.setAttribute("aria-label", label);
  };
  const stop = () => {
    clearInterval(timer);
    timer = null;
    show("▶", "play the steps");
  };
  const toggle = () => {
    if (timer) {
      stop();
      return;
    }
    rewind();
    show("❚❚", "pause");
    timer = setInterval(() => next() || stop(), EVERY);
  };
  return { toggle, stop };
}
