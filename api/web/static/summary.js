// A summary: its video, the whole video, and the curve of scores, by which one moves through the whole video.

import { createPlayer } from "./player.js";

/** Starts the section: a highlight is played to its end, any other moment of the curve from there on, and the curve shows
 * the position of whichever video moved last. */
export function startSummary(section) {
  const whole = section.querySelector("#whole-film"), short = section.querySelector("#summary-film");
  const svg = section.querySelector("#score svg");
  if (!whole || !svg) return;
  const view = {
    head: svg.querySelector(".head"),
    highlights: [...svg.querySelectorAll("a")].map((link) => (
      { link, start: Number(link.dataset.start), end: Number(link.dataset.end) }
    )),
    wholePlayer: createPlayer(whole, Number(section.dataset.offset), () => markPosition(view, view.wholePlayer.seconds())),
    summaryPlayer: short && createPlayer(short, 0, () => markPosition(view, toVideoTime(view, view.summaryPlayer.seconds()))),
  };
  if (short) { // one at a time
    whole.addEventListener("play", () => short.pause());
    short.addEventListener("play", () => whole.pause());
  }
  whole.addEventListener("error", () => {
    whole.parentElement.querySelector("figcaption").textContent = "This browser cannot play the whole video.";
  });
  section.addEventListener("click", (event) => {
    const link = event.target.closest("a[data-start]");
    if (event.ctrlKey || event.metaKey || event.shiftKey || !(link || svg.contains(event.target))) return;
    event.preventDefault();
    const box = svg.getBoundingClientRect();
    const seconds = ((event.clientX - box.left) / box.width) * Number(section.dataset.duration);
    playHighlight(view, link ? Number(link.dataset.start) : seconds, link ? Number(link.dataset.end) : null);
  });
}

/** Plays the whole video from a time, up to `end` unless null; the summary if the browser cannot play the whole. */
function playHighlight(view, start, end) {
  if (view.wholePlayer.video.error && view.summaryPlayer) {
    const there = toSummaryTime(view, start);
    if (there !== null) view.summaryPlayer.goTo(there, true);
  } else if (end === null) view.wholePlayer.goTo(start, true);
  else view.wholePlayer.play(start, end);
}

/** Converts a time of the summary to one of the video: the summary is its highlights back to back. */
function toVideoTime({ highlights }, seconds) {
  let before = 0;
  for (const { start, end } of highlights) {
    if (seconds < before + end - start) return start + seconds - before;
    before += end - start;
  }
  return highlights.at(-1).end;
}

/** Converts a time of the video to one of the summary; null for a time outside of every highlight. */
function toSummaryTime({ highlights }, seconds) {
  let before = 0;
  for (const { start, end } of highlights) {
    if (seconds >= start && seconds < end) return before + seconds - start;
    before += end - start;
  }
  return null;
}

function markPosition({ head, highlights }, seconds) {
  head.setAttribute("d", `M${seconds} 0V10`);
  for (const { link, start, end } of highlights) {
    if (seconds >= start && seconds < end) link.setAttribute("aria-current", "true");
    else link.removeAttribute("aria-current");
  }
}
