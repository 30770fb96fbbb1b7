// Films and shots that are alike: a click on a picture plays what it stands for, over the grid.

import { player } from "./player.js";

const AGAIN = [1_000, 3_000, 9_000]; // ms after which a picture that did not come is asked for again

/** Starts the section. */
export function likeness(section) {
  for (const picture of section.querySelectorAll(".grid img")) insist(picture);
  const screen = section.querySelector("#like-screen");
  section.querySelector(".grid")?.addEventListener("click", (event) => {
    const link = event.target.closest("a");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    open(screen, link);
  });
}

/** Few pictures are decoded at a time: one that was refused comes later. */
function insist(picture) {
  const { src } = picture, pauses = [...AGAIN];
  const again = () => {
    const pause = pauses.shift();
    if (pause) setTimeout(() => { picture.src = src; }, pause);
  };
  picture.addEventListener("error", again);
  if (picture.complete && !picture.naturalWidth) again();
}

/** In a player of its own, since what a player calls the first frame is found out once for each film. */
function open(screen, link) {
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
  const film = player(video, Number(offset), () => {});
  if (end) film.play(Number(start), Number(end));
  else film.goTo(Number(start), true);
  for (const other of link.closest(".grid").querySelectorAll("[aria-current]")) other.removeAttribute("aria-current");
  link.setAttribute("aria-current", "true");
  screen.scrollIntoView({ block: "nearest" });
  video.focus({ preventScroll: true });
}
