// A film in a player, by the times of the results: seconds since its first frame, whatever the player calls that frame.

const INSIDE = 0.001; // seconds past the cut: players round times, and a hair before it is the frame before it
const PATIENCE = 1_000; // ms to wait for the first picture, once the player knows what the film is

/** Takes a player in hand. `offset` is what it calls the first frame as far as the probe can tell; `moved()` is called
 * whenever the time may have changed, with every picture while it plays. */
export function player(video, offset, moved) {
  const state = { video, offset, moved, measured: false, wanted: null, plays: false, stretch: null };
  for (const kind of ["timeupdate", "seeking", "seeked", "ended"]) video.addEventListener(kind, () => follow(state));
  video.addEventListener("seeking", () => leave(state));
  video.addEventListener("play", () => run(state));
  measure(state);
  return {
    video,
    /** Where the film stands; null while it is on its way to where it was sent. */
    seconds: () => (state.wanted === null ? since(state, video.currentTime) : null),
    /** The same of another time of the player, such as that of a picture. */
    since: (time) => since(state, time),
    /** Goes to a frame by its first moment, and plays on from there. */
    goTo: (seconds, plays) => goTo(state, seconds, plays, null),
    /** Plays from one time to another and stops on the last frame before the latter. */
    play: (start, end) => goTo(state, start, true, { start, end }),
  };
}

function since(state, time) {
  return Math.max(0, time - state.offset);
}

function goTo(state, seconds, plays, stretch) {
  Object.assign(state, { wanted: seconds, plays, stretch });
  if (state.measured) {
    seek(state);
    return;
  }
  state.video.removeAttribute("poster"); // behind it no picture is shown, and the first one lets it seek
  if (state.video.preload === "none") state.video.preload = "metadata";
  setTimeout(() => wait(state, state.video.readyState > 0), PATIENCE);
}

/** Goes by the probe's word when no first picture comes, though the film is there. */
function wait(state, known) {
  if (state.measured) return;
  if (known || state.video.error) seek(state);
  else setTimeout(() => wait(state, state.video.readyState > 0), PATIENCE);
}

function seek(state) {
  state.measured = true;
  if (state.wanted !== null) state.video.currentTime = state.offset + state.wanted + INSIDE;
  state.wanted = null;
  if (!state.plays) return; // never from elsewhere: before it is measured, a player may be anywhere
  state.plays = false;
  state.video.play().catch(() => follow(state)); // refused or overtaken: the player shows that it stands still
}

/** Finds out what this player calls the first frame. Players disagree about a film that does not start at 0 (some count
 * from its own start, some shift it to 0), so the time of the first picture shown is taken, and the probe's without. */
function measure(state) {
  state.measured = !("requestVideoFrameCallback" in state.video);
  if (state.measured) return;
  state.video.requestVideoFrameCallback((_, { mediaTime }) => {
    if (state.measured) return;
    state.offset = mediaTime;
    seek(state);
  });
  if (state.video.readyState > 0) state.video.load(); // the first picture may have been shown before: once more
}

/** A reader who goes elsewhere by the player's own controls is not held back at the end of what was to be played. */
function leave(state) {
  const seconds = state.video.currentTime - state.offset;
  const outside = state.stretch && (seconds < state.stretch.start || seconds >= state.stretch.end);
  if (state.wanted === null && outside) state.stretch = null;
}

/** Holds the film where the stretch that was to be played ends; whether it has. */
function held(state) {
  const { video, stretch, offset } = state;
  if (!stretch || video.seeking || video.currentTime - offset < stretch.end) return false;
  video.pause();
  video.currentTime = offset + Math.max(stretch.start, stretch.end - 10 * INSIDE);
  state.stretch = null;
  return true;
}

/** While the film plays, the time moves with every picture. */
function run(state) {
  if (state.video.paused || state.video.ended || !state.video.isConnected) return;
  follow(state);
  requestAnimationFrame(() => run(state));
}

function follow(state) {
  if (state.wanted === null && !held(state)) state.moved(); // held: told again when it stands there
}
