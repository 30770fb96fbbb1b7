// A summary: its film, the whole film, and the scores, by which the whole film is gone through.

import { player } from "./player.js";

/** Starts the section: a highlight is played to its end, any other moment of the curve from there on, and the curve shows
 * where the film stands that moved last. */
export function summary(section) {
  const whole = section.querySelector("#whole-film"), short = section.querySelector("#summary-film");
  const svg = section.querySelector("#score svg");
  if (!whole || !svg) return;
  const view = {
    head: svg.querySelector(".head"),
    highlights: [...svg.querySelectorAll("a")].map((link) => (
      { link, start: Number(link.dataset.start), end: Number(link.dataset.end) }
    )),
    film: player(whole, Number(section.dataset.offset), () => mark(view, view.film.seconds())),
    cut: short && player(short, 0, () => mark(view, inFilm(view, view.cut.seconds()))),
  };
  if (short) { // one at a time
    whole.addEventListener("play", () => short.pause());
    short.addEventListener("play", () => whole.pause());
  }
  whole.addEventListener("error", () => {
    whole.parentElement.querySelector("figcaption").textContent = "This browser cannot play the whole film.";
  });
  section.addEventListener("click", (event) => {
    const link = event.target.closest("a[data-start]");
    if (event.ctrlKey || event.metaKey || event.shiftKey || !(link || svg.contains(event.target))) return;
    event.preventDefault();
    const box = svg.getBoundingClientRect();
    const seconds = ((event.clientX - box.left) / box.width) * Number(section.dataset.duration);
    go(view, link ? Number(link.dataset.start) : seconds, link ? Number(link.dataset.end) : null);
  });
}

/** Plays the whole film from a time, to another where there is one; where this browser cannot, that of the summary. */
function go(view, start, end) {
  if (view.film.video.error && view.cut) {
    const there = inCut(view, start);
    if (there !== null) view.cut.goTo(there, true);
  } else if (end === null) view.film.goTo(start, true);
  else view.film.play(start, end);
}

/** What a time of the summary is in the film: the highlights lie in it back to back. */
function inFilm({ highlights }, seconds) {
  let before = 0;
  for (const { start, end } of highlights) {
    if (seconds < before + end - start) return start + seconds - before;
    before += end - start;
  }
  return highlights.at(-1).end;
}

/** The other way round; null for a time that the summary does not have. */
function inCut({ highlights }, seconds) {
  let before = 0;
  for (const { start, end } of highlights) {
    if (seconds >= start && seconds < end) return before + seconds - start;
    before += end - start;
  }
  return null;
}

function mark({ head, highlights }, seconds) {
  head.setAttribute("d", `M${seconds} 0V10`);
  for (const { link, start, end } of highlights) {
    if (seconds >= start && seconds < end) link.setAttribute("aria-current", "true");
    else link.removeAttribute("aria-current");
  }
}
