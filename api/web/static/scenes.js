// The scenes of a video: bands over the time line and over the filmstrip, the probability that a scene ends with each
// shot, and a threshold by which the shots are grouped anew, here and at once.

import { createDrawing, playRange } from "./shots.js";

const COLOUR_COUNT = 6;
const PAGE_SIZE = 5_000; // of results: the most that the API gives
const MAX_CELLS_AT_ONCE = 600; // more cells of the strip than these are coloured only when the slider rests
const DELAY_MS = 150;
const MIN_LABEL_PX = 22; // room for a number inside its band

/** Starts the section. Returns a function that draws the bands over the shots: call it with each new view of the shots,
 * and with null when other scenes replace these. */
export function startScenes(section) {
  const tools = section.querySelector("#scene-tools");
  const state = {
    section, tools,
    runs: [...tools.querySelectorAll(".switch")],
    title: tools.querySelector("h2"),
    slider: tools.querySelector("#threshold"),
    graph: tools.querySelector("#graph"),
    bands: tools.querySelector("#bands"),
    list: section.querySelector("#scene-list"),
    loaded: new Map(), // run -> shots and threshold
    shots: [], groups: [], threshold: 0, run: null, requested: null, view: null, planned: false, later: 0, over: null,
  };
  state.list.open = false;
  addListeners(state);
  selectRun(state, state.runs.find((run) => run.hasAttribute("aria-current")));
  return (view) => attachToShots(state, view);
}

/** Draws the bands over the time line of the shots, and colours their strip. */
function attachToShots(state, view) {
  state.over?.abort();
  state.view = null;
  clearTimeout(state.later);
  if (!view) return;
  const { signal } = state.over = new AbortController();
  const place = view.section.querySelector("#over-line");
  if (!place) return;
  state.view = view;
  place.replaceChildren(state.tools);
  view.section.addEventListener("cells", () => colourStrip(state), { signal });
  view.section.addEventListener("shot", () => markCurrentScene(state), { signal });
  view.strip.addEventListener("click", (event) => {
    const cell = event.target.closest("li");
    if (!event.target.closest("a") && cell?.className) playScene(state, sceneOfCell(state, cell));
  }, { signal });
  drawScenes(state);
}

function addListeners(state) {
  const { tools, slider, bands, list } = state;
  tools.addEventListener("click", (event) => {
    const run = event.target.closest(".switch");
    if (!run || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    selectRun(state, run);
  });
  slider.addEventListener("input", () => setThreshold(state, Number(slider.value)));
  tools.querySelector("#reset").addEventListener("click", () => {
    setThreshold(state, Number(state.run.dataset.threshold));
    slider.focus();
  });
  bands.addEventListener("click", (event) => {
    const band = event.target.closest("button");
    if (band) playScene(state, Number(band.dataset.at));
  });
  bands.addEventListener("keydown", (event) => handleBandKey(state, event));
  list.addEventListener("toggle", () => fillSceneList(state));
  list.addEventListener("click", (event) => {
    const link = event.target.closest("tbody a");
    if (!link || !state.view?.playable || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    playScene(state, Number(link.dataset.at ?? link.closest("tr").sectionRowIndex));
    state.view.video.scrollIntoView({ block: "nearest" });
  });
}

/** Shows the scenes of a run; its probabilities are fetched only once. */
async function selectRun(state, run) {
  const message = state.tools.querySelector(".error");
  state.requested = run;
  try {
    if (!state.loaded.has(run)) {
      const shots = await fetchBoundaries(state.section.dataset.job, run.dataset);
      state.loaded.set(run, { shots, threshold: Number(run.dataset.threshold) });
    }
  } catch (error) {
    message.textContent = `The probabilities could not be loaded (${error.message}).`;
    message.hidden = false;
    return;
  }
  if (state.requested !== run) return; // another one was selected meanwhile
  state.run = run;
  message.hidden = true;
  for (const one of state.runs) one.removeAttribute("aria-current");
  run.setAttribute("aria-current", "true");
  state.shots = state.loaded.get(run).shots;
  state.threshold = state.loaded.get(run).threshold;
  state.groups = groupShots(state.shots, state.threshold);
  drawScenes(state);
}

/** The shots of a run, each with the probability that a scene ends with it. */
async function fetchBoundaries(job, { model, run }) {
  const found = [];
  let token = null;
  do {
    const query = new URLSearchParams({ model, kind: "boundary", limit: PAGE_SIZE, ...(token && { page_token: token }) });
    const answer = await fetch(`/v1/jobs/${job}/results?${query}`);
    if (!answer.ok) throw new Error(`status ${answer.status}`);
    const page = await answer.json();
    found.push(...page.items.filter((item) => item.run_id === run));
    token = page.next_page_token;
  } while (token);
  return found.map(({ start, end, score }) => (
    { start: start.seconds, end: end.seconds, timecode: start.timecode, score: Math.fround(score) }
  ));
}

/** First and last shot of each scene: it ends with a shot strictly above the threshold, both as float32, or with the
 * video. This is the rule of the service, to the last bit: float32 and strictly above. */
export function groupShots(shots, threshold) {
  const bound = Math.fround(threshold), found = [];
  let first = 0;
  shots.forEach(({ score }, shot) => {
    if (score <= bound && shot < shots.length - 1) return;
    found.push({ first, last: shot, start: shots[first].start, end: shots[shot].end });
    first = shot + 1;
  });
  return found;
}

/** Groups by another threshold, at most once for each animation frame however fast the slider moves. */
function setThreshold(state, threshold) {
  state.threshold = state.loaded.get(state.run).threshold = threshold;
  if (state.planned) return;
  state.planned = true;
  requestAnimationFrame(() => {
    state.planned = false;
    state.groups = groupShots(state.shots, state.threshold);
    drawScenes(state);
  });
}

function drawScenes(state) {
  if (!state.groups.length) return;
  updateHeading(state);
  fillSceneList(state);
  if (!state.view) return;
  drawGraph(state);
  drawBands(state);
  clearTimeout(state.later);
  if (state.view.cells.length <= MAX_CELLS_AT_ONCE) colourStrip(state);
  else state.later = setTimeout(() => colourStrip(state), DELAY_MS);
  markCurrentScene(state);
}

/** Shows the number of scenes, the threshold, and links to exactly these scenes. */
function updateHeading(state) {
  const { tools, slider, threshold, run, groups } = state;
  const count = `${groups.length} scene${groups.length === 1 ? "" : "s"}`;
  const regrouped = threshold !== Number(run.dataset.threshold);
  state.title.textContent = count;
  slider.value = threshold;
  slider.setAttribute("aria-valuetext", `${threshold}: ${count}`);
  tools.querySelector("output").textContent = Number(threshold.toFixed(4));
  tools.querySelector("#reset").hidden = !regrouped;
  tools.querySelector("#reset").textContent = `Back to ${run.dataset.threshold}`;
  tools.querySelector("#choose").hidden = false;
  const place = `/v1/jobs/${state.section.dataset.job}/results`;
  const query = new URLSearchParams({ format: "modelscope", model: run.dataset.model, ...(regrouped && { threshold }) });
  state.section.querySelector("#published").href = `${place}?${query}`;
  const exports = state.section.querySelector("#exports");
  exports.hidden = regrouped; // the exports have only the scenes by the threshold of the run
  for (const link of exports.querySelectorAll("a")) {
    link.href = `${place}?${new URLSearchParams({ kind: "scene", run_id: run.dataset.run, format: link.dataset.format })}`;
  }
}

/** Draws the curve with a point at the end of each shot; what is above the threshold stands out. */
function drawGraph({ graph, view, shots, threshold }) {
  const bound = Math.fround(threshold), height = (score) => (10 * (1 - score)).toFixed(4);
  const line = shots.map(({ end, score }) => `${end} ${height(score)}`).join("L");
  graph.replaceChildren(createDrawing(view, {
    area: `M${shots[0].end} 10L${line}V10Z`,
    curve: `M${line}`,
    ends: shots.filter(({ score }) => score > bound).map(({ end, score }) => `M${end} ${height(score)}V10`).join(""),
    bound: `M0 ${height(threshold)}H${view.duration}`,
  }));
  graph.hidden = false;
}

function drawBands({ bands, view, groups, shots }) {
  const focused = bands.contains(document.activeElement);
  bands.hidden = false;
  const second = bands.clientWidth / view.duration; // in pixels
  bands.replaceChildren(...groups.map((scene, at) => {
    const band = document.createElement("button");
    const length = scene.end - scene.start;
    band.type = "button";
    band.tabIndex = -1;
    band.dataset.at = at;
    band.className = colourClass(at);
    band.style.left = `${(100 * scene.start) / view.duration}%`;
    band.style.width = `${(100 * length) / view.duration}%`;
    if (length * second >= MIN_LABEL_PX) band.textContent = at + 1;
    band.title = `Scene ${at + 1}, from ${shots[scene.first].timecode}, ${formatDuration(length)}`;
    band.setAttribute("aria-label", `${band.title}, ${formatShots(scene)}`);
    return band;
  }));
  const reached = bands.children[Math.max(0, sceneIndexAt(groups, view.cells[view.current]?.start ?? 0))];
  reached.tabIndex = 0;
  if (focused) reached.focus({ preventScroll: true });
}

/** Colours the cells of the strip; only those that change are touched. */
function colourStrip({ view, groups }) {
  if (!groups.length) return; // not loaded yet
  let at = 0;
  view.strip.classList.add("scened");
  view.cells.forEach(({ link, start }, index) => {
    while (at < groups.length - 1 && groups[at + 1].start <= start) at += 1;
    const next = view.cells[index + 1]?.start, item = link.parentElement;
    const opens = index === 0 || view.cells[index - 1].start < groups[at].start;
    const closes = next === undefined || (at < groups.length - 1 && groups[at + 1].start <= next);
    const classes = `${colourClass(at)}${opens ? " opens" : ""}${closes ? " closes" : ""}`;
    if (item.className !== classes) item.className = classes;
    if ((item.dataset.scene ?? "") !== (opens ? `Scene ${at + 1}` : "")) item.dataset.scene = opens ? `Scene ${at + 1}` : "";
  });
}

function colourClass(at) {
  return `c${at % COLOUR_COUNT}`;
}

/** Marks the scene of the current shot. */
function markCurrentScene({ bands, view, groups }) {
  const band = bands.children[sceneIndexAt(groups, view.cells[view.current]?.start ?? 0)];
  const before = bands.querySelector("[aria-current]");
  if (!band || before === band) return;
  before?.removeAttribute("aria-current");
  band.setAttribute("aria-current", "true");
}

/** Fills the list while it is open. Its rows are copies of the first one, which the server has rendered. */
function fillSceneList({ list, groups, shots, threshold }) {
  if (!list.open || !groups.length) return;
  const body = list.querySelector("tbody"), pattern = body.rows[0];
  const place = pattern.querySelector("a").href.split("#")[0];
  const offset = Number(document.getElementById("film")?.dataset.offset ?? 0);
  body.replaceChildren(...groups.map((scene, at) => {
    const row = pattern.cloneNode(true), link = row.querySelector("a");
    const [, from, length, which, end] = row.cells, { score } = shots[scene.last];
    link.href = `${place}#t=${offset + scene.start},${offset + scene.end}`;
    link.dataset.at = at;
    link.lastChild.textContent = at + 1;
    link.querySelector("i").className = `chip ${colourClass(at)}`;
    from.textContent = shots[scene.first].timecode;
    length.textContent = formatDuration(scene.end - scene.start);
    which.textContent = formatShots(scene).replace(/^shots? /, "");
    end.textContent = score > Math.fround(threshold) ? score.toFixed(3) : "end of the video";
    return row;
  }));
}

function formatShots({ first, last }) {
  return first === last ? `shot ${first + 1}` : `shots ${first + 1} to ${last + 1}`;
}

/** Arrow keys, Home and End go from band to band; one of them can be reached by Tab. */
function handleBandKey({ bands }, event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const all = bands.children, now = Number(document.activeElement.dataset.at), last = all.length - 1;
  const next = { ArrowLeft: Math.max(0, now - 1), ArrowRight: Math.min(last, now + 1), Home: 0, End: last }[event.key];
  if (next === undefined) return;
  event.preventDefault();
  all[now].tabIndex = -1;
  all[next].tabIndex = 0;
  all[next].focus({ preventScroll: true });
}

function playScene({ view, groups }, at) {
  if (view) playRange(view, groups[at].start, groups[at].end);
}

function sceneOfCell({ view, groups }, item) {
  return sceneIndexAt(groups, view.cells[Number(item.querySelector("a").dataset.at)].start);
}

/** Returns the index of the scene at a time, by binary search: there may be thousands. */
function sceneIndexAt(groups, seconds) {
  let low = 0, high = groups.length - 1;
  while (low < high) {
    const middle = Math.ceil((low + high) / 2);
    if (groups[middle].start <= seconds) low = middle;
    else high = middle - 1;
  }
  return low;
}

/** Formats a duration as the server does: `0.52 s`, `8.3 s`, `2:05`, `1:02:05`. */
function formatDuration(seconds) {
  if (seconds < 59.95) return `${seconds.toFixed(seconds < 1 ? 2 : 1)} s`;
  const whole = Math.round(seconds), two = (number) => String(number).padStart(2, "0");
  const minutes = Math.floor(whole / 60);
  return minutes < 60 ? `${minutes}:${two(whole % 60)}` : `${Math.floor(minutes / 60)}:${two(minutes % 60)}:${two(whole % 60)}`;
}
