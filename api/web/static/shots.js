// A film with its shots: the player, the filmstrip under it, and a time line on which the shots are drawn to scale.

import { player } from "./player.js";

const SVG = "http://www.w3.org/2000/svg";
const HANDS_OFF = 4_000; // ms for which the strip does not move by itself after a reader has moved it
const KEYS = { ArrowLeft: -1, ArrowRight: 1 };

/** Starts the section: every shot can be played, by pointer and by keys, and the one that plays is shown. Says `cells`
 * on it when more shots have come, and `shot` when another one is the current one. Returns the view. */
export function film(section) {
  const view = {
    section,
    video: section.querySelector("#player"),
    strip: section.querySelector("#strip"),
    line: section.querySelector("#line"),
    stills: section.querySelector("#stills"),
    heads: section.getElementsByClassName("head"),
    screen: null,
    duration: Number(section.dataset.duration),
    cells: [],
    current: -1,
    playable: true,
    movedAt: 0,
  };
  view.screen = player(view.video, Number(section.dataset.offset), () => follow(view));
  if (view.strip) {
    gather(view, view.strip.querySelectorAll("a"));
    drawLine(view);
    show(view, 0, false);
    listen(view);
    loadRest(view);
  }
  watchFailure(view);
  return view;
}

/** Takes cells in. One of them can be reached by Tab: the current one. */
function gather(view, links) {
  for (const link of links) {
    link.tabIndex = -1;
    link.dataset.at = view.cells.length;
    view.cells.push({ link, start: Number(link.dataset.start), end: Number(link.dataset.end) });
  }
}

/** Follows the link to further shots until there is none. */
async function loadRest(view) {
  let link = view.section.querySelector("#more");
  const place = link?.parentElement;
  while (link) {
    const answer = await fetch(link.href);
    if (!answer.ok) return; // the link stays, for a try by hand
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const items = [...page.querySelectorAll("#strip > li")].map((item) => document.importNode(item, true));
    view.strip.append(...items);
    gather(view, items.map((item) => item.querySelector("a")));
    view.section.dispatchEvent(new Event("cells"));
    const next = page.querySelector("#more");
    if (next) link.href = next.href;
    else link = null;
    count(view, Boolean(next));
  }
  place?.remove();
  drawLine(view);
}

function count(view, more) {
  view.section.querySelector("#total").textContent = `${view.cells.length}${more ? "+" : ""}`;
  view.line.setAttribute("aria-valuemax", view.cells.length);
}

function listen(view) {
  const { section, strip, line } = view;
  strip.addEventListener("click", (event) => {
    const link = event.target.closest("a");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    go(view, Number(link.dataset.at), true);
  });
  line.addEventListener("click", (event) => {
    const box = line.getBoundingClientRect();
    go(view, at(view, ((event.clientX - box.left) / box.width) * view.duration), true);
  });
  section.addEventListener("keydown", (event) => keys(view, event), { capture: true });
  for (const kind of ["wheel", "touchmove", "pointerdown"]) {
    strip.addEventListener(kind, () => { view.movedAt = Date.now(); }, { passive: true });
  }
  wrapping(view);
}

function keys(view, event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("button, .keys a, #scene-tools *")) return;
  const last = view.cells.length - 1;
  let next = null;
  if (event.key in KEYS) next = Math.min(last, Math.max(0, view.current + KEYS[event.key]));
  else if (event.target !== view.video && event.key === "Home") next = 0;
  else if (event.target !== view.video && event.key === "End") next = last;
  if (next === null) return;
  event.preventDefault();
  event.stopPropagation();
  const inStrip = view.strip.contains(document.activeElement);
  view.movedAt = 0;
  go(view, next, false);
  if (inStrip) view.cells[next].link.focus({ preventScroll: true });
}

/** Goes to the first frame of a shot. */
function go(view, index, plays) {
  if (reach(view, index)) view.screen.goTo(view.cells[index].start, plays);
}

/** Plays from one time to another, in seconds since the first frame, and stops on the last frame before the latter. */
export function play(view, start, end) {
  if (reach(view, at(view, start))) view.screen.play(start, end);
}

/** Marks the shot that is gone to; whether the player can go there. */
function reach(view, index) {
  view.movedAt = 0;
  show(view, index, true);
  if (!view.playable) enlarge(view, view.cells[index]);
  return view.playable;
}

/** Index of the shot at a time since the first frame; a gradual change between two shots belongs to the former. */
function at(view, seconds) {
  let low = 0, high = view.cells.length - 1;
  while (low < high) {
    const middle = Math.ceil((low + high) / 2);
    if (view.cells[middle].start <= seconds) low = middle;
    else high = middle - 1;
  }
  return low;
}

function follow(view) {
  if (!view.cells.length) return;
  const seconds = view.screen.seconds();
  show(view, at(view, seconds), true);
  for (const head of view.heads) head.setAttribute("d", `M${seconds} 0V10`);
}

/** Marks a shot as the current one, in the strip and on the line. */
function show(view, index, move) {
  if (index === view.current) return;
  const before = view.cells[view.current], cell = view.cells[index];
  before?.link.removeAttribute("aria-current");
  if (before) before.link.tabIndex = -1;
  cell.link.setAttribute("aria-current", "true");
  cell.link.tabIndex = 0;
  view.current = index;
  const words = cell.link.getAttribute("aria-label");
  view.line.setAttribute("aria-valuenow", index + 1);
  view.line.setAttribute("aria-valuetext", words);
  view.line.querySelector(".now").setAttribute("d", box(cell));
  view.section.querySelector("#now").textContent = words;
  view.section.dispatchEvent(new Event("shot"));
  if (move && Date.now() - view.movedAt > HANDS_OFF) centre(view, cell.link.parentElement);
}

/** Brings a cell into the middle of the strip, and leaves the page where it is. */
function centre({ strip }, item) {
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  strip.scrollTo({
    left: item.offsetLeft - (strip.clientWidth - item.offsetWidth) / 2,
    top: item.offsetTop - (strip.clientHeight - item.offsetHeight) / 2,
    behavior: still ? "instant" : "smooth",
  });
}

function box({ start, end }) {
  return `M${start} 0H${end}V10H${start}Z`;
}

/** Draws the time line: two paths, however many shots there are. */
function drawLine(view) {
  view.line.replaceChildren(drawing(view, {
    even: view.cells.filter((_, index) => index % 2 === 0).map(box).join(""),
    odd: view.cells.filter((_, index) => index % 2 === 1).map(box).join(""),
    now: view.current >= 0 ? box(view.cells[view.current]) : "",
  }));
  view.line.hidden = false;
}

/** Paths by class, and the head of the player, over the length of the film: x is seconds, y goes from 0 down to 10. */
export function drawing(view, paths) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", `0 0 ${view.duration} 10`);
  svg.setAttribute("preserveAspectRatio", "none");
  const head = `M${view.screen.seconds() ?? 0} 0V10`;
  for (const [name, d] of Object.entries({ ...paths, head })) {
    const path = document.createElementNS(SVG, "path");
    path.setAttribute("class", name);
    path.setAttribute("d", d);
    svg.append(path);
  }
  return svg;
}

/** The switch between one row and all shots at once. */
function wrapping(view) {
  const button = view.section.querySelector("#wrap");
  button.hidden = false;
  button.addEventListener("click", () => {
    const all = view.strip.classList.toggle("all");
    button.setAttribute("aria-pressed", all);
    centre(view, view.cells[view.current].link.parentElement);
  });
}

/** A film that this browser cannot play is said to be so; a film whose sound alone plays counts as one. */
function watchFailure(view) {
  const { video, section } = view;
  const failed = () => {
    const network = video.error?.code === MediaError.MEDIA_ERR_NETWORK;
    give(view, network ? "The film could not be loaded." : `This browser cannot play ${section.dataset.codec} video.`);
  };
  video.addEventListener("error", failed);
  video.addEventListener("loadedmetadata", () => { if (!video.videoWidth) failed(); });
  if (video.error || (video.readyState > 0 && !video.videoWidth)) failed();
}

function give(view, words) {
  view.playable = false;
  view.video.pause();
  view.video.hidden = true;
  view.stills.hidden = false;
  view.stills.querySelector(".error").textContent = `${words} Click a shot to see its keyframes larger.`;
  if (view.cells.length) enlarge(view, view.cells[Math.max(0, view.current)]);
}

/** The keyframes of a shot, in the place of the player. */
function enlarge(view, { link }) {
  const middle = link.querySelector("img");
  if (!middle) return;
  const pictures = ["first", "middle", "last"].map((which, number) => Object.assign(document.createElement("img"), {
    src: middle.src.replace("_img_1.", `_img_${number}.`),
    alt: `${link.getAttribute("aria-label")}: ${which} frame`,
  }));
  view.stills.querySelector(".three").replaceChildren(...pictures);
}
