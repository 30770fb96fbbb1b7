// Masks over a video: drawn on a canvas for each frame that the player shows, in one colour for each query.

import { createPlayer } from "./player.js";
import { createMaskPath, openTracks } from "./mask_tracks.js";

const MAX_CANVAS_WIDTH = 1280; // px: masks of larger videos are scaled down, which is faster to fill
const OPACITY = 0.55;
const SCORE_INTERVAL_MS = 200; // between two updates of the scores
const NO_MASK_TEXT = "nothing";

/** Starts the section. */
export function startMasks(section) {
  const video = section.querySelector("#masked");
  if (!video) return;
  const { offset, lines, size, start, end } = section.dataset;
  const view = {
    section,
    canvas: section.querySelector("#over"),
    start: Number(start),
    end: Number(end),
    queries: [...section.querySelectorAll("[data-query]")].map(readQuery),
    seconds: null,
    exact: false, // whether the browser reports the time of each frame
    spokeAt: 0,
  };
  video.src = video.getAttribute("src").split("#")[0]; // without a start time, so that the first frame shown is that of the video
  view.screen = createPlayer(video, Number(offset), () => handleTimeChange(view));
  view.lines = openTracks(lines, Number(size), view.start, view.end, (error) => handleTracksLoaded(view, error));
  watchFrames(view, video);
  video.addEventListener("error", () => showOverlayVideo(view, video), { once: true });
  addFullScreenButton(section);
  for (const { box } of view.queries) {
    box.hidden = false;
    box.addEventListener("change", () => drawMasks(view));
  }
  view.screen.goTo(view.start, false);
}

function readQuery(row) {
  return {
    number: Number(row.dataset.query),
    colour: row.dataset.colour,
    box: row.querySelector("input"),
    words: row.querySelector(".now span"),
  };
}

/** Draws for each frame by the time of that frame, where the browser reports it; else handleTimeChange draws. */
function watchFrames(view, video) {
  if (!("requestVideoFrameCallback" in video)) return;
  const shown = (_, { mediaTime }) => {
    view.exact = true;
    view.seconds = view.screen.secondsAt(mediaTime);
    drawMasks(view);
    if (video.isConnected) video.requestVideoFrameCallback(shown);
  };
  video.requestVideoFrameCallback(shown);
  video.addEventListener("seeked", () => { // while paused, the callback is not called for every frame
    if (!video.paused) return;
    view.seconds = view.screen.secondsAt(video.currentTime);
    drawMasks(view);
  });
}

/** Plays the overlay video, if there is one, in place of a video that this browser cannot play. */
function showOverlayVideo(view, video) {
  const message = view.section.querySelector(".error"), { overlay } = view.section.dataset;
  message.textContent = `This browser cannot play the video${overlay ? ": here is the one with the masks drawn in." : "."}`;
  message.hidden = false;
  view.canvas.hidden = true;
  if (overlay) video.src = overlay;
}

/** Adds full screen for video and canvas together: the control of the player would leave the canvas out. */
function addFullScreenButton(section) {
  const button = section.querySelector("#fill"), layers = section.querySelector(".layers");
  button.hidden = !document.fullscreenEnabled;
  button.addEventListener("click", () => layers.requestFullscreen());
}

function handleTimeChange(view) {
  if (view.exact) return;
  view.seconds = view.screen.seconds();
  drawMasks(view);
}

function handleTracksLoaded(view, error) {
  const message = view.section.querySelector(".error");
  message.hidden = error === null;
  if (error) message.textContent = `The masks could not be loaded (${error.message}).`;
  else drawMasks(view);
}

function drawMasks(view) {
  const { canvas, seconds, start, end } = view;
  const context = canvas.getContext("2d");
  context.setTransform(1, 0, 0, 1, 0, 0);
  context.clearRect(0, 0, canvas.width, canvas.height);
  const inside = seconds !== null && seconds > start - 0.0005 && seconds < end;
  const lines = inside ? view.lines.linesAt(seconds) : [];
  canvas.dataset.frame = lines?.[0]?.frame ?? "";
  if (lines === null) return; // still loading; drawn again when they are there
  for (const line of lines) {
    const query = view.queries.find(({ number }) => number === line.query);
    if (query?.box.checked && line.box) drawMask(context, canvas, line, query.colour);
  }
  updateScores(view, lines);
}

function drawMask(context, canvas, line, colour) {
  const [height, width] = line.mask.size;
  const part = Math.min(1, MAX_CANVAS_WIDTH / width), size = [Math.round(width * part), Math.round(height * part)];
  if (canvas.width !== size[0] || canvas.height !== size[1]) [canvas.width, canvas.height] = size;
  context.setTransform(part, 0, 0, part, 0, 0);
  context.fillStyle = `rgba(${colour}, ${OPACITY})`;
  context.fill(createMaskPath(line.mask));
  const [x, y, wide, high] = line.box, thick = Math.max(1, width / 480);
  context.strokeStyle = `rgb(${colour})`;
  context.lineWidth = thick;
  context.strokeRect(x - thick / 2, y - thick / 2, wide + thick, high + thick);
  drawLabel(context, line, colour, x, y, width);
}

/** Draws the number of the query and its score above the box or, where there is no room, inside it. */
function drawLabel(context, line, colour, x, y, width) {
  const high = Math.max(10, width / 45), words = `${line.query + 1}: ${line.score.toFixed(2)}`;
  const top = y > high * 1.2 ? y - high * 1.2 : y;
  context.font = `600 ${high}px system-ui, sans-serif`;
  context.textBaseline = "top";
  context.fillStyle = `rgb(${colour})`;
  context.fillRect(x, top, context.measureText(words).width + high * 0.5, high * 1.2);
  context.fillStyle = "#000";
  context.fillText(words, x + high * 0.25, top + high * 0.1);
}

/** Writes the scores into the table, less often than frames change: nobody could read them. */
function updateScores(view, lines) {
  const now = performance.now();
  if (!view.screen.video.paused && now - view.spokeAt < SCORE_INTERVAL_MS) return;
  view.spokeAt = now;
  for (const { number, words } of view.queries) {
    const line = lines.find(({ query }) => query === number);
    const text = line ? `${line.score.toFixed(3)}, ${line.box ? formatBox(line.box) : NO_MASK_TEXT}` : "";
    if (words.textContent !== text) words.textContent = text;
  }
}

function formatBox([x, y, wide, high]) {
  return `${wide} x ${high} at ${x}, ${y}`;
}
