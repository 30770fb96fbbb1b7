// Similar videos and shots: a click on a keyframe plays its shot or video above the grid.

import { createPlayer } from "./player.js";

const RETRY_DELAYS_MS = [1_000, 3_000, 9_000]; // after which a keyframe that failed to load is requested again

/** Starts the section. */
export function startSearch(section) {
  for (const image of section.querySelectorAll(".grid img")) retryImage(image);
  const screen = section.querySelector("#like-screen");
  section.querySelector(".grid")?.addEventListener("click", (event) => {
    const link = event.target.closest("a");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    playNeighbour(screen, link);
  });
}

/** Requests an image again later: the service decodes only a few keyframes at a time, and refuses the others. */
function retryImage(image) {
  const { src } = image, delays = [...RETRY_DELAYS_MS];
  const again = () => {
    const delay = delays.shift();
    if (delay) setTimeout(() => { image.src = src; }, delay);
  };
  image.addEventListener("error", again);
  if (image.complete && !image.naturalWidth) again();
}

/** Plays a neighbour in a new video element, since a player measures its offset once for each video. */
function playNeighbour(screen, link) {
  const { offset, start, end, name } = link.dataset;
  const before = screen.querySelector("video"), video = before.cloneNode();
  const caption = screen.querySelector("figcaption");
  video.src = link.href.split("#")[0];
  video.setAttribute("aria-label", name);
  before.pause();
  before.replaceWith(video);
  caption.textContent = name;
  video.addEventListener("error", () => { caption.textContent = `${name}: this browser cannot play it.`; });
  screen.hidden = false;
  const player = createPlayer(video, Number(offset), () => {});
  if (end) player.play(Number(start), Number(end));
  else player.goTo(Number(start), true);
  for (const other of link.closest(".grid").querySelectorAll("[aria-current]")) other.removeAttribute("aria-current");
  link.setAttribute("aria-current", "true");
  screen.scrollIntoView({ block: "nearest" });
  video.focus({ preventScroll: true });
}
