// Masks over a film: drawn on a canvas with each picture that the player shows, one colour a query.

import { player } from "./player.js";
import { outline, tracks } from "./mask_tracks.js";

const WIDEST = 1280; // px of the canvas: masks of larger films are drawn smaller
const OPACITY = 0.55;
const SPEAK_EVERY = 200; // ms between two updates of the numbers
const NOTHING = "nothing";

/** Starts the section. */
export function masks(section) {
  const video = section.querySelector("#masked");
  if (!video) return;
  const { offset, lines, size, start, end } = section.dataset;
  const view = {
    section,
    canvas: section.querySelector("#over"),
    start: Number(start),
    end: Number(end),
    queries: [...section.querySelectorAll("[data-query]")].map(queryOf),
    seconds: null,
    exact: false, // whether pictures tell their times
    spokeAt: 0,
  };
  video.src = video.getAttribute("src").split("#")[0]; // its first picture is to be that of the film
  view.screen = player(video, Number(offset), () => moved(view));
  view.lines = tracks(lines, Number(size), view.start, view.end, (error) => came(view, error));
  watch(view, video);
  video.addEventListener("error", () => instead(view, video), { once: true });
  filling(section);
  for (const { box } of view.queries) {
    box.hidden = false;
    box.addEventListener("change", () => draw(view));
  }
  view.screen.goTo(view.start, false);
}

function queryOf(row) {
  return {
    number: Number(row.dataset.query),
    colour: row.dataset.colour,
    box: row.querySelector("input"),
    words: row.querySelector(".now span"),
  };
}

/** Draws with each picture, by the time of that very picture; by the player's clock where it does not tell. */
function watch(view, video) {
  if (!("requestVideoFrameCallback" in video)) return;
  const shown = (_, { mediaTime }) => {
    view.exact = true;
    view.seconds = view.screen.since(mediaTime);
    draw(view);
    if (video.isConnected) video.requestVideoFrameCallback(shown);
  };
  video.requestVideoFrameCallback(shown);
  video.addEventListener("seeked", () => { // of a film that stands still, not every picture is told of
    if (!video.paused) return;
    view.seconds = view.screen.since(video.currentTime);
    draw(view);
  });
}

/** A film that this browser cannot play: the overlay film, where there is one. */
function instead(view, video) {
  const said = view.section.querySelector(".error"), { overlay } = view.section.dataset;
  said.textContent = `This browser cannot play the film${overlay ? ": here is the one with the masks drawn in." : "."}`;
  said.hidden = false;
  view.canvas.hidden = true;
  if (overlay) video.src = overlay;
}

/** Full screen with the canvas: the player's own would leave it behind. */
function filling(section) {
  const button = section.querySelector("#fill"), layers = section.querySelector(".layers");
  button.hidden = !document.fullscreenEnabled;
  button.addEventListener("click", () => layers.requestFullscreen());
}

function moved(view) {
  if (view.exact) return;
  view.seconds = view.screen.seconds();
  draw(view);
}

function came(view, error) {
  const said = view.section.querySelector(".error");
  said.hidden = error === null;
  if (error) said.textContent = `The masks could not be loaded (${error.message}).`;
  else draw(view);
}

function draw(view) {
  const { canvas, seconds, start, end } = view;
  const context = canvas.getContext("2d");
  context.setTransform(1, 0, 0, 1, 0, 0);
  context.clearRect(0, 0, canvas.width, canvas.height);
  const inside = seconds !== null && seconds > start - 0.0005 && seconds < end;
  const lines = inside ? view.lines.at(seconds) : [];
  canvas.dataset.frame = lines?.[0]?.frame ?? "";
  if (lines === null) return; // on their way
  for (const line of lines) {
    const query = view.queries.find(({ number }) => number === line.query);
    if (query?.box.checked && line.box) drawLine(context, canvas, line, query.colour);
  }
  say(view, lines);
}

function drawLine(context, canvas, line, colour) {
  const [height, width] = line.mask.size;
  const part = Math.min(1, WIDEST / width), size = [Math.round(width * part), Math.round(height * part)];
  if (canvas.width !== size[0] || canvas.height !== size[1]) [canvas.width, canvas.height] = size;
  context.setTransform(part, 0, 0, part, 0, 0);
  context.fillStyle = `rgba(${colour}, ${OPACITY})`;
  context.fill(outline(line.mask));
  const [x, y, wide, high] = line.box, thick = Math.max(1, width / 480);
  context.strokeStyle = `rgb(${colour})`;
  context.lineWidth = thick;
  context.strokeRect(x - thick / 2, y - thick / 2, wide + thick, high + thick);
  label(context, line, colour, x, y, width);
}

/** Number of the query and its score, over the box or, where there is no room, inside it. */
function label(context, line, colour, x, y, width) {
  const high = Math.max(10, width / 45), words = `${line.query + 1}: ${line.score.toFixed(2)}`;
  const top = y > high * 1.2 ? y - high * 1.2 : y;
  context.font = `600 ${high}px system-ui, sans-serif`;
  context.textBaseline = "top";
  context.fillStyle = `rgb(${colour})`;
  context.fillRect(x, top, context.measureText(words).width + high * 0.5, high * 1.2);
  context.fillStyle = "#000";
  context.fillText(words, x + high * 0.25, top + high * 0.1);
}

/** The same in words, not with every picture: nobody could read it. */
function say(view, lines) {
  const now = performance.now();
  if (!view.screen.video.paused && now - view.spokeAt < SPEAK_EVERY) return;
  view.spokeAt = now;
  for (const { number, words } of view.queries) {
    const line = lines.find(({ query }) => query === number);
    const text = line ? `${line.score.toFixed(3)}, ${line.box ? place(line.box) : NOTHING}` : "";
    if (words.textContent !== text) words.textContent = text;
  }
}

function place([x, y, wide, high]) {
  return `${wide} x ${high} at ${x}, ${y}`;
}
