// A player addressed by the times of the results: seconds since the first frame, at whatever time the player has it.

const SEEK_MARGIN_S = 0.001; // seek a little past the cut: players round times, and just before it lies the previous frame
const FIRST_FRAME_TIMEOUT_MS = 1_000; // wait for the first frame, once the player has the metadata

/** Wraps a video element. `offset` is its time of the first frame according to the probe; `moved()` is called whenever
 * the time may have changed, for every frame while it plays. */
export function createPlayer(video, offset, moved) {
  const state = { video, offset, moved, measured: false, target: null, plays: false, range: null };
  for (const kind of ["timeupdate", "seeking", "seeked", "ended"]) video.addEventListener(kind, () => notifyMoved(state));
  video.addEventListener("seeking", () => dropRangeWhenLeft(state));
  video.addEventListener("play", () => followFrames(state));
  measureOffset(state);
  return {
    video,
    /** Returns the present time; null while a seek is pending. */
    seconds: () => (state.target === null ? secondsSinceFirstFrame(state, video.currentTime) : null),
    /** Converts a time of the player, such as that of a frame. */
    secondsAt: (time) => secondsSinceFirstFrame(state, time),
    /** Seeks to a frame by its start, and plays from there if `plays`. */
    goTo: (seconds, plays) => goToTime(state, seconds, plays, null),
    /** Plays from one time to another and stops on the last frame before the latter. */
    play: (start, end) => goToTime(state, start, true, { start, end }),
  };
}

function secondsSinceFirstFrame(state, time) {
  return Math.max(0, time - state.offset);
}

function goToTime(state, seconds, plays, range) {
  Object.assign(state, { target: seconds, plays, range });
  if (state.measured) {
    seekToTarget(state);
    return;
  }
  state.video.removeAttribute("poster"); // no frame is shown behind a poster, and the first frame is what the offset is measured by
  if (state.video.preload === "none") state.video.preload = "metadata";
  setTimeout(() => waitForFirstFrame(state, state.video.readyState > 0), FIRST_FRAME_TIMEOUT_MS);
}

/** Falls back to the offset of the probe when no first frame is reported though the video is there. */
function waitForFirstFrame(state, known) {
  if (state.measured) return;
  if (known || state.video.error) seekToTarget(state);
  else setTimeout(() => waitForFirstFrame(state, state.video.readyState > 0), FIRST_FRAME_TIMEOUT_MS);
}

function seekToTarget(state) {
  state.measured = true;
  if (state.target !== null) state.video.currentTime = state.offset + state.target + SEEK_MARGIN_S;
  state.target = null;
  if (!state.plays) return; // and not before: until the offset is measured, the player may stand anywhere
  state.plays = false;
  state.video.play().catch(() => notifyMoved(state)); // refused, or interrupted by another seek: the player shows that it is paused
}

/** Measures the player's time of the first frame. Players disagree about a video that does not start at 0 (some keep its
 * times, some shift them to 0), so the time of the first frame shown is taken; without that report, the probe's. */
function measureOffset(state) {
  state.measured = !("requestVideoFrameCallback" in state.video);
  if (state.measured) return;
  state.video.requestVideoFrameCallback((_, { mediaTime }) => {
    if (state.measured) return;
    state.offset = mediaTime;
    seekToTarget(state);
  });
  if (state.video.readyState > 0) state.video.load(); // the first frame may have been shown already: load again
}

/** Drops the range to be played when the reader seeks out of it by the controls of the player. */
function dropRangeWhenLeft(state) {
  const seconds = state.video.currentTime - state.offset;
  const outside = state.range && (seconds < state.range.start || seconds >= state.range.end);
  if (state.target === null && outside) state.range = null;
}

/** Pauses at the end of the range to be played; returns whether it did. */
function stopAtRangeEnd(state) {
  const { video, range, offset } = state;
  if (!range || video.seeking || video.currentTime - offset < range.end) return false;
  video.pause();
  video.currentTime = offset + Math.max(range.start, range.end - 10 * SEEK_MARGIN_S);
  state.range = null;
  return true;
}

/** Reports the time with every animation frame while the video plays. */
function followFrames(state) {
  if (state.video.paused || state.video.ended || !state.video.isConnected) return;
  notifyMoved(state);
  requestAnimationFrame(() => followFrames(state));
}

function notifyMoved(state) {
  if (state.target === null && !stopAtRangeEnd(state)) state.moved(); // after a stop the seek reports it
}
