// The scenes of a film: bands over the time line and over the filmstrip, the probability that a scene ends with each
// shot, and a threshold by which the shots are grouped anew, here and at once.

import { drawing, play } from "./shots.js";

const COLOURS = 6;
const ROWS = 5_000; // of one page of results: the most that the API gives
const FEW = 600; // cells of the strip that are coloured at once; more of them, when the slider rests
const REST = 150; // ms
const LABEL = 22; // px that a number needs inside its band

/** Starts the section. Returns what brings the bands over a film: to be called with the view of each film that comes, and
 * with null when other scenes take the place of these. */
export function scenes(section) {
  const tools = section.querySelector("#scene-tools");
  const state = {
    section, tools,
    runs: [...tools.querySelectorAll(".switch")],
    title: tools.querySelector("h2"),
    slider: tools.querySelector("#threshold"),
    graph: tools.querySelector("#graph"),
    bands: tools.querySelector("#bands"),
    list: section.querySelector("#scene-list"),
    kept: new Map(), // run -> shots and threshold
    shots: [], groups: [], threshold: 0, run: null, wanted: null, view: null, planned: false, later: 0, over: null,
  };
  state.list.open = false;
  listen(state);
  choose(state, state.runs.find((run) => run.hasAttribute("aria-current")));
  return (view) => attach(state, view);
}

/** Puts the bands over the time line of a film, and over its strip. */
function attach(state, view) {
  state.over?.abort();
  state.view = null;
  clearTimeout(state.later);
  if (!view) return;
  const { signal } = state.over = new AbortController();
  const place = view.section.querySelector("#over-line");
  if (!place) return;
  state.view = view;
  place.replaceChildren(state.tools);
  view.section.addEventListener("cells", () => overStrip(state), { signal });
  view.section.addEventListener("shot", () => mark(state), { signal });
  view.strip.addEventListener("click", (event) => {
    const cell = event.target.closest("li");
    if (!event.target.closest("a") && cell?.className) playScene(state, sceneOf(state, cell));
  }, { signal });
  draw(state);
}

function listen(state) {
  const { tools, slider, bands, list } = state;
  tools.addEventListener("click", (event) => {
    const run = event.target.closest(".switch");
    if (!run || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    choose(state, run);
  });
  slider.addEventListener("input", () => set(state, Number(slider.value)));
  tools.querySelector("#reset").addEventListener("click", () => {
    set(state, Number(state.run.dataset.threshold));
    slider.focus();
  });
  bands.addEventListener("click", (event) => {
    const band = event.target.closest("button");
    if (band) playScene(state, Number(band.dataset.at));
  });
  bands.addEventListener("keydown", (event) => walk(state, event));
  list.addEventListener("toggle", () => fillList(state));
  list.addEventListener("click", (event) => {
    const link = event.target.closest("tbody a");
    if (!link || !state.view?.playable || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    playScene(state, Number(link.dataset.at ?? link.closest("tr").sectionRowIndex));
    state.view.video.scrollIntoView({ block: "nearest" });
  });
}

/** Shows the scenes of a run: its probabilities are fetched once. */
async function choose(state, run) {
  const said = state.tools.querySelector(".error");
  state.wanted = run;
  try {
    if (!state.kept.has(run)) {
      const shots = await boundaries(state.section.dataset.job, run.dataset);
      state.kept.set(run, { shots, threshold: Number(run.dataset.threshold) });
    }
  } catch (error) {
    said.textContent = `The probabilities could not be loaded (${error.message}).`;
    said.hidden = false;
    return;
  }
  if (state.wanted !== run) return; // another one was chosen meanwhile
  state.run = run;
  said.hidden = true;
  for (const one of state.runs) one.removeAttribute("aria-current");
  run.setAttribute("aria-current", "true");
  state.shots = state.kept.get(run).shots;
  state.threshold = state.kept.get(run).threshold;
  state.groups = grouped(state.shots, state.threshold);
  draw(state);
}

/** The shots of a run, each with the probability that a scene ends with it. */
async function boundaries(job, { model, run }) {
  const found = [];
  let token = null;
  do {
    const query = new URLSearchParams({ model, kind: "boundary", limit: ROWS, ...(token && { page_token: token }) });
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
 * film. The rule of the service, to the last bit. */
export function grouped(shots, threshold) {
  const bound = Math.fround(threshold), found = [];
  let first = 0;
  shots.forEach(({ score }, shot) => {
    if (score <= bound && shot < shots.length - 1) return;
    found.push({ first, last: shot, start: shots[first].start, end: shots[shot].end });
    first = shot + 1;
  });
  return found;
}

/** Groups by another threshold, once for each picture of the screen however fast the slider moves. */
function set(state, threshold) {
  state.threshold = state.kept.get(state.run).threshold = threshold;
  if (state.planned) return;
  state.planned = true;
  requestAnimationFrame(() => {
    state.planned = false;
    state.groups = grouped(state.shots, state.threshold);
    draw(state);
  });
}

function draw(state) {
  if (!state.groups.length) return;
  say(state);
  fillList(state);
  if (!state.view) return;
  drawGraph(state);
  drawBands(state);
  clearTimeout(state.later);
  if (state.view.cells.length <= FEW) overStrip(state);
  else state.later = setTimeout(() => overStrip(state), REST);
  mark(state);
}

/** The number of scenes, the threshold, and the address of these very scenes. */
function say(state) {
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
  exports.hidden = regrouped; // they are of the run's own scenes
  for (const link of exports.querySelectorAll("a")) {
    link.href = `${place}?${new URLSearchParams({ kind: "scene", run_id: run.dataset.run, format: link.dataset.format })}`;
  }
}

/** The curve, drawn where each shot ends; what is above the threshold stands out. */
function drawGraph({ graph, view, shots, threshold }) {
  const bound = Math.fround(threshold), height = (score) => (10 * (1 - score)).toFixed(4);
  const line = shots.map(({ end, score }) => `${end} ${height(score)}`).join("L");
  graph.replaceChildren(drawing(view, {
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
    band.className = colour(at);
    band.style.left = `${(100 * scene.start) / view.duration}%`;
    band.style.width = `${(100 * length) / view.duration}%`;
    if (length * second >= LABEL) band.textContent = at + 1;
    band.title = `Scene ${at + 1}, from ${shots[scene.first].timecode}, ${lasting(length)}`;
    band.setAttribute("aria-label", `${band.title}, ${shotsOf(scene)}`);
    return band;
  }));
  const reached = bands.children[Math.max(0, sceneAt(groups, view.cells[view.current]?.start ?? 0))];
  reached.tabIndex = 0;
  if (focused) reached.focus({ preventScroll: true });
}

/** Colours the cells of the strip; only those that change are touched. */
function overStrip({ view, groups }) {
  if (!groups.length) return; // not loaded yet
  let at = 0;
  view.strip.classList.add("scened");
  view.cells.forEach(({ link, start }, index) => {
    while (at < groups.length - 1 && groups[at + 1].start <= start) at += 1;
    const next = view.cells[index + 1]?.start, item = link.parentElement;
    const opens = index === 0 || view.cells[index - 1].start < groups[at].start;
    const closes = next === undefined || (at < groups.length - 1 && groups[at + 1].start <= next);
    const classes = `${colour(at)}${opens ? " opens" : ""}${closes ? " closes" : ""}`;
    if (item.className !== classes) item.className = classes;
    if ((item.dataset.scene ?? "") !== (opens ? `Scene ${at + 1}` : "")) item.dataset.scene = opens ? `Scene ${at + 1}` : "";
  });
}

function colour(at) {
  return `c${at % COLOURS}`;
}

/** Marks the scene of the current shot. */
function mark({ bands, view, groups }) {
  const band = bands.children[sceneAt(groups, view.cells[view.current]?.start ?? 0)];
  const before = bands.querySelector("[aria-current]");
  if (!band || before === band) return;
  before?.removeAttribute("aria-current");
  band.setAttribute("aria-current", "true");
}

/** The list follows while it is open. Its rows are made like the first one, which the server has drawn. */
function fillList({ list, groups, shots, threshold }) {
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
    link.querySelector("i").className = `chip ${colour(at)}`;
    from.textContent = shots[scene.first].timecode;
    length.textContent = lasting(scene.end - scene.start);
    which.textContent = shotsOf(scene).replace(/^shots? /, "");
    end.textContent = score > Math.fround(threshold) ? score.toFixed(3) : "end of the film";
    return row;
  }));
}

function shotsOf({ first, last }) {
  return first === last ? `shot ${first + 1}` : `shots ${first + 1} to ${last + 1}`;
}

/** Arrow keys, Home and End go from band to band; one of them can be reached by Tab. */
function walk({ bands }, event) {
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
  if (view) play(view, groups[at].start, groups[at].end);
}

function sceneOf({ view, groups }, item) {
  return sceneAt(groups, view.cells[Number(item.querySelector("a").dataset.at)].start);
}

/** Number of the scene at a time, by halving: there may be thousands. */
function sceneAt(groups, seconds) {
  let low = 0, high = groups.length - 1;
  while (low < high) {
    const middle = Math.ceil((low + high) / 2);
    if (groups[middle].start <= seconds) low = middle;
    else high = middle - 1;
  }
  return low;
}

/** A length of time as the server writes it: `0.52 s`, `8.3 s`, `2:05`, `1:02:05`. */
function lasting(seconds) {
  if (seconds < 59.95) return `${seconds.toFixed(seconds < 1 ? 2 : 1)} s`;
  const whole = Math.round(seconds), two = (number) => String(number).padStart(2, "0");
  const minutes = Math.floor(whole / 60);
  return minutes < 60 ? `${minutes}:${two(whole % 60)}` : `${Math.floor(minutes / 60)}:${two(minutes % 60)}:${two(whole % 60)}`;
}
