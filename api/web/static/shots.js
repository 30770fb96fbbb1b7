// A video with its shots: the player, the filmstrip under it, and a time line on which the shots are drawn to scale.

import { createPlayer } from "./player.js";

const SVG = "http://www.w3.org/2000/svg";
const AUTOSCROLL_PAUSE_MS = 4_000; // the strip does not scroll by itself for so long after the reader has scrolled it
const KEY_STEPS = { ArrowLeft: -1, ArrowRight: 1 };

/** Starts the section: every shot can be played, by pointer and by keys, and the one that plays is shown. Sends
 * the events `cells` when more shots have been added, and `shot` when the current one changes. Returns the view. */
export function startShots(section) {
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
  view.screen = createPlayer(view.video, Number(section.dataset.offset), () => followPlayback(view));
  if (view.strip) {
    addCells(view, view.strip.querySelectorAll("a"));
    drawTimeline(view);
    showCurrentShot(view, 0, false);
    addListeners(view);
    loadMorePages(view);
  }
  watchPlayback(view);
  return view;
}

/** Adds cells. One of them can be reached by Tab: the current one. */
function addCells(view, links) {
  for (const link of links) {
    link.tabIndex = -1;
    link.dataset.at = view.cells.length;
    view.cells.push({ link, start: Number(link.dataset.start), end: Number(link.dataset.end) });
  }
}

/** Follows the link to further shots until there is none. */
async function loadMorePages(view) {
  let link = view.section.querySelector("#more");
  const place = link?.parentElement;
  while (link) {
    const answer = await fetch(link.href);
    if (!answer.ok) return; // the link stays, so that the reader can try
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const items = [...page.querySelectorAll("#strip > li")].map((item) => document.importNode(item, true));
    view.strip.append(...items);
    addCells(view, items.map((item) => item.querySelector("a")));
    view.section.dispatchEvent(new Event("cells"));
    const next = page.querySelector("#more");
    if (next) link.href = next.href;
    else link = null;
    updateCount(view, Boolean(next));
  }
  place?.remove();
  drawTimeline(view);
}

function updateCount(view, more) {
  view.section.querySelector("#total").textContent = `${view.cells.length}${more ? "+" : ""}`;
  view.line.setAttribute("aria-valuemax", view.cells.length);
}

function addListeners(view) {
  const { section, strip, line } = view;
  strip.addEventListener("click", (event) => {
    const link = event.target.closest("a");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    goToShot(view, Number(link.dataset.at), true);
  });
  line.addEventListener("click", (event) => {
    const box = line.getBoundingClientRect();
    goToShot(view, shotIndexAt(view, ((event.clientX - box.left) / box.width) * view.duration), true);
  });
  section.addEventListener("keydown", (event) => handleKey(view, event), { capture: true });
  for (const kind of ["wheel", "touchmove", "pointerdown"]) {
    strip.addEventListener(kind, () => { view.movedAt = Date.now(); }, { passive: true });
  }
  addWrapButton(view);
}

function handleKey(view, event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("button, .keys a, #scene-tools *")) return;
  const last = view.cells.length - 1;
  let next = null;
  if (event.key in KEY_STEPS) next = Math.min(last, Math.max(0, view.current + KEY_STEPS[event.key]));
  else if (event.target !== view.video && event.key === "Home") next = 0;
  else if (event.target !== view.video && event.key === "End") next = last;
  if (next === null) return;
  event.preventDefault();
  event.stopPropagation();
  const inStrip = view.strip.contains(document.activeElement);
  view.movedAt = 0;
  goToShot(view, next, false);
  if (inStrip) view.cells[next].link.focus({ preventScroll: true });
}

/** Goes to the first frame of a shot. */
function goToShot(view, index, plays) {
  if (selectShot(view, index)) view.screen.goTo(view.cells[index].start, plays);
}

/** Plays from one time to another, in seconds since the first frame, and stops on the last frame before the latter. */
export function playRange(view, start, end) {
  if (selectShot(view, shotIndexAt(view, start))) view.screen.play(start, end);
}

/** Makes a shot the current one; returns whether the player can seek to it. */
function selectShot(view, index) {
  view.movedAt = 0;
  showCurrentShot(view, index, true);
  if (!view.playable) showKeyframes(view, view.cells[index]);
  return view.playable;
}

/** Returns the index of the shot at a time; a gradual transition between two shots belongs to the first. */
function shotIndexAt(view, seconds) {
  let low = 0, high = view.cells.length - 1;
  while (low < high) {
    const middle = Math.ceil((low + high) / 2);
    if (view.cells[middle].start <= seconds) low = middle;
    else high = middle - 1;
  }
  return low;
}

function followPlayback(view) {
  if (!view.cells.length) return;
  const seconds = view.screen.seconds();
  showCurrentShot(view, shotIndexAt(view, seconds), true);
  for (const head of view.heads) head.setAttribute("d", `M${seconds} 0V10`);
}

/** Marks a shot as the current one, in the strip and on the line. */
function showCurrentShot(view, index, move) {
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
  view.line.querySelector(".now").setAttribute("d", rectanglePath(cell));
  view.section.querySelector("#now").textContent = words;
  view.section.dispatchEvent(new Event("shot"));
  if (move && Date.now() - view.movedAt > AUTOSCROLL_PAUSE_MS) centreCell(view, cell.link.parentElement);
}

/** Scrolls a cell to the middle of the strip without scrolling the page, as scrollIntoView would. */
function centreCell({ strip }, item) {
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  strip.scrollTo({
    left: item.offsetLeft - (strip.clientWidth - item.offsetWidth) / 2,
    top: item.offsetTop - (strip.clientHeight - item.offsetHeight) / 2,
    behavior: still ? "instant" : "smooth",
  });
}

function rectanglePath({ start, end }) {
  return `M${start} 0H${end}V10H${start}Z`;
}

/** Draws the time line as two paths, however many shots there are: thousands of elements would be slow. */
function drawTimeline(view) {
  view.line.replaceChildren(createDrawing(view, {
    even: view.cells.filter((_, index) => index % 2 === 0).map(rectanglePath).join(""),
    odd: view.cells.filter((_, index) => index % 2 === 1).map(rectanglePath).join(""),
    now: view.current >= 0 ? rectanglePath(view.cells[view.current]) : "",
  }));
  view.line.hidden = false;
}

/** Returns an SVG of paths by class and of the playhead; x is seconds of the video, y goes from 0 down to 10. */
export function createDrawing(view, paths) {
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

/** Adds the button that switches between one row and all shots at once. */
function addWrapButton(view) {
  const button = view.section.querySelector("#wrap");
  button.hidden = false;
  button.addEventListener("click", () => {
    const all = view.strip.classList.toggle("all");
    button.setAttribute("aria-pressed", all);
    centreCell(view, view.cells[view.current].link.parentElement);
  });
}

/** Shows keyframes when this browser cannot play the video, or only its sound. */
function watchPlayback(view) {
  const { video, section } = view;
  const failed = () => {
    const network = video.error?.code === MediaError.MEDIA_ERR_NETWORK;
    showKeyframesInstead(view, network ? "The video could not be loaded." : `This browser cannot play ${section.dataset.codec} video.`);
  };
  video.addEventListener("error", failed);
  video.addEventListener("loadedmetadata", () => { if (!video.videoWidth) failed(); });
  if (video.error || (video.readyState > 0 && !video.videoWidth)) failed();
}

function showKeyframesInstead(view, words) {
  view.playable = false;
  view.video.pause();
  view.video.hidden = true;
  view.stills.hidden = false;
  view.stills.querySelector(".error").textContent = `${words} Click a shot to see its keyframes larger.`;
  if (view.cells.length) showKeyframes(view, view.cells[Math.max(0, view.current)]);
}

/** Shows the keyframes of a shot in the place of the player. */
function showKeyframes(view, { link }) {
  const middle = link.querySelector("img");
  if (!middle) return;
  const images = ["first", "middle", "last"].map((which, number) => Object.assign(document.createElement("img"), {
    src: middle.src.replace("_img_1.", `_img_${number}.`),
    alt: `${link.getAttribute("aria-label")}: ${which} frame`,
  }));
  view.stills.querySelector(".three").replaceChildren(...images);
}
