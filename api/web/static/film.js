// A film with its shots: the player, the filmstrip under it, and a time line on which the shots are drawn to scale.

const SVG = "http://www.w3.org/2000/svg";
const INSIDE = 0.001; // seconds past the cut: players round times, and a hair before it is the frame before it
const PATIENCE = 1_000; // ms to wait for the first picture
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
    offset: Number(section.dataset.offset),
    duration: Number(section.dataset.duration),
    cells: [],
    current: -1,
    playable: true,
    measured: false,
    wanted: null,
    plays: false,
    stretch: null,
    movedAt: 0,
  };
  measure(view);
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
  const { section, video, strip, line } = view;
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
  for (const kind of ["timeupdate", "seeking", "seeked", "ended"]) video.addEventListener(kind, () => follow(view));
  video.addEventListener("seeking", () => leave(view));
  video.addEventListener("play", () => run(view));
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
function go(view, index, play) {
  view.stretch = null;
  goTo(view, index, view.cells[index].start, play);
}

/** Plays from one time to another, in seconds since the first frame, and stops on the last frame before the latter. */
export function play(view, start, end) {
  view.stretch = { start, end };
  goTo(view, at(view, start), start, true);
}

function goTo(view, index, seconds, play) {
  view.movedAt = 0;
  show(view, index, true);
  if (!view.playable) {
    enlarge(view, view.cells[index]);
    return;
  }
  view.wanted = seconds;
  view.plays = play;
  if (view.measured) seek(view);
  else setTimeout(() => seek(view), PATIENCE);
}

function seek(view) {
  view.measured = true;
  if (view.wanted !== null) view.video.currentTime = view.offset + view.wanted + INSIDE;
  view.wanted = null;
  if (!view.plays) return; // never from elsewhere: before it is measured, a player may be anywhere
  view.plays = false;
  view.video.play().catch(() => follow(view)); // refused or overtaken: the player shows that it stands still
}

/** Finds out what this player calls the first frame. Players disagree about a film that does not start at 0 (some count
 * from its own start, some shift it to 0), so the time of the first picture shown is taken, and the probe's without. */
function measure(view) {
  view.measured = !("requestVideoFrameCallback" in view.video);
  if (view.measured) return;
  view.video.requestVideoFrameCallback((_, { mediaTime }) => {
    if (view.measured) return;
    view.offset = mediaTime;
    seek(view);
  });
  if (view.video.readyState > 0) view.video.load(); // the first picture may have been shown before: once more
}

/** A reader who goes elsewhere by the player's own controls is not held back at the end of what was to be played. */
function leave(view) {
  const seconds = view.video.currentTime - view.offset;
  if (view.wanted === null && view.stretch && (seconds < view.stretch.start || seconds >= view.stretch.end)) view.stretch = null;
}

/** Holds the film where the stretch that was to be played ends; whether it has. */
function held(view, seconds) {
  if (!view.stretch || view.video.seeking || seconds < view.stretch.end) return false;
  view.video.pause();
  view.video.currentTime = view.offset + Math.max(view.stretch.start, view.stretch.end - 10 * INSIDE);
  view.stretch = null;
  return true;
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

/** While the film plays, the time line moves with every picture. */
function run(view) {
  if (view.video.paused || view.video.ended || !view.section.isConnected) return;
  follow(view);
  requestAnimationFrame(() => run(view));
}

function follow(view) {
  if (view.wanted !== null) return;
  const seconds = Math.max(0, view.video.currentTime - view.offset);
  if (held(view, seconds)) return; // and told again when it stands there
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
  const head = `M${Math.max(0, view.video.currentTime - view.offset)} 0V10`;
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
