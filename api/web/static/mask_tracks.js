// A file of tracks (JSON lines, sorted by time), read by byte ranges while a video plays, and masks from run lengths.

const CHUNK_BYTES = 1 << 18; // size of one range request
const MAX_CACHED_CHUNKS = 24;
const READ_AHEAD_CHUNKS = 2; // chunks read beyond the present one
const TIME_TOLERANCE_S = 0.0005; // lines have times of six decimals; players are about as exact

/** The lines of a file at an address: `linesAt(seconds)` gives those of the frame shown then, or null while they are not
 * there yet; `changed(error)` is called when some have come, or could not be read. `since` and `until` are the times
 * between which the file has lines. */
export function openTracks(address, size, since, until, changed) {
  const state = {
    address, size, since, until, changed,
    last: Math.max(0, Math.ceil(size / CHUNK_BYTES) - 1),
    raw: new Map(), chunks: new Map(), // number -> its bytes, its lines, promises
    lines: [], first: 0, end: -1, // the lines of the chunks from `first` to `end`
    busy: false, wanted: null, tried: null,
  };
  return { linesAt: (seconds) => linesAt(state, seconds + TIME_TOLERANCE_S) };
}

function linesAt(state, seconds) {
  const { lines } = state, place = lastIndexBefore(lines, seconds);
  const frame = lines[place]?.frame, more = state.end < state.last;
  const cut = place < 0 || (more && frame === lines.at(-1).frame) || (state.first > 0 && frame === lines[0].frame);
  if (cut && state.tried !== seconds) {
    loadAround(state, seconds);
    return null;
  }
  if (more && lines[place]?.chunk >= state.end - READ_AHEAD_CHUNKS / 2) loadAround(state, seconds);
  let from = Math.max(0, place);
  while (from > 0 && lines[from - 1].frame === frame) from -= 1;
  return lines.slice(from, place + 1);
}

/** Returns the index of the last line at or before a time; -1 if there is none. */
function lastIndexBefore(lines, seconds) {
  let low = -1, high = lines.length - 1;
  while (low < high) {
    const middle = Math.ceil((low + high) / 2);
    if (lines[middle].seconds <= seconds) low = middle;
    else high = middle - 1;
  }
  return low;
}

/** Loads the lines around a time. Requests that arrive meanwhile are merged: only the latest time counts. */
async function loadAround(state, seconds) {
  state.wanted = seconds;
  if (state.busy) return;
  state.busy = true;
  try {
    while (state.wanted !== null) {
      const time = state.wanted;
      state.wanted = null;
      const found = await findChunk(state, time);
      const first = Math.max(0, found - 1), end = Math.min(state.last, found + READ_AHEAD_CHUNKS);
      const numbers = Array.from({ length: end - first + 1 }, (_, after) => first + after);
      const parts = await Promise.all(numbers.map((number) => getChunk(state, number)));
      Object.assign(state, { lines: parts.flat(), first, end, tried: time });
    }
    state.busy = false;
    state.changed(null);
  } catch (error) {
    Object.assign(state, { busy: false, wanted: null });
    state.changed(error);
  }
}

/** Number of the last chunk that begins at or before a time: near where it would be if all were of one length, else
 * further and further away from there, then by halving. */
async function findChunk(state, seconds) {
  let low = 0, high = state.last, step = 1, later = false, earlier = false;
  let middle = Math.round(((seconds - state.since) / (state.until - state.since || 1)) * high);
  while (low < high) {
    middle = Math.min(high, Math.max(low + 1, middle));
    if (await chunkStartTime(state, middle) <= seconds) [low, later] = [middle, true];
    else [high, earlier] = [middle - 1, true];
    if (later && earlier) middle = Math.ceil((low + high) / 2);
    else middle = later ? low + step : high + 1 - step;
    step *= 2;
  }
  return low;
}

/** Returns the time of the first line of a chunk, or of an earlier one where a line is longer than a chunk. */
async function chunkStartTime(state, number) {
  for (let one = number; one > 0; one -= 1) {
    const [first] = await getChunk(state, one);
    if (first) return first.seconds;
  }
  return -Infinity;
}

/** Returns the lines that begin in a chunk: after its first line end, or in the first chunk at its start. */
function getChunk(state, number) {
  return getCached(state.chunks, number, () => readChunk(state, number));
}

async function readChunk(state, number) {
  let data = await fetchBytes(state, number), end = number;
  const start = number === 0 ? 0 : data.indexOf(10) + 1;
  if (number > 0 && start === 0) return [];
  while (end < state.last && data.indexOf(10, CHUNK_BYTES) < 0) { // the last line goes on in the next chunk
    end += 1;
    const more = await fetchBytes(state, end), whole = new Uint8Array(data.length + more.length);
    whole.set(data);
    whole.set(more, data.length);
    data = whole;
  }
  const stop = data.indexOf(10, CHUNK_BYTES);
  const text = new TextDecoder().decode(data.subarray(start, stop < 0 ? data.length : stop));
  return text.split("\n").filter(Boolean).map((line) => ({ ...JSON.parse(line), chunk: number }));
}

function fetchBytes(state, number) {
  return getCached(state.raw, number, async () => {
    const first = number * CHUNK_BYTES, last = Math.min(state.size, first + CHUNK_BYTES) - 1;
    const answer = await fetch(state.address, { headers: { Range: `bytes=${first}-${last}` } });
    if (answer.status !== 206) throw new Error(`status ${answer.status}`);
    return new Uint8Array(await answer.arrayBuffer());
  });
}

/** Returns a cached promise, or creates it. Least recently used ones are dropped; failed ones are not kept. */
function getCached(known, number, make) {
  const found = known.get(number) ?? make();
  known.delete(number);
  known.set(number, found);
  while (known.size > MAX_CACHED_CHUNKS) known.delete(known.keys().next().value);
  found.catch(() => known.delete(number));
  return found;
}

/** Lengths of the runs of a mask, the first one outside it: COCO's compressed form, six bits a character, of which five
 * are digits and one says that more follow; from the third on, each is the difference to the one but last. */
export function decodeRuns(counts) {
  const found = [];
  let place = 0;
  while (place < counts.length) {
    let value = 0, shift = 0, digit;
    do {
      digit = counts.charCodeAt(place) - 48;
      value |= (digit & 31) << shift;
      shift += 5;
      place += 1;
    } while (digit & 32);
    if (digit & 16 && shift < 32) value |= -1 << shift;
    found.push(found.length > 2 ? value + found.at(-2) : value);
  }
  return found;
}

/** Returns a mask as a path in its own pixels. Runs go down column by column. */
export function createMaskPath({ size: [height], counts }) {
  const path = new Path2D();
  let place = 0;
  decodeRuns(counts).forEach((length, number) => {
    if (number % 2) addRunToPath(path, place, length, height);
    place += length;
  });
  return path;
}

function addRunToPath(path, from, length, height) {
  let place = from, rest = length;
  while (rest > 0) {
    const column = Math.floor(place / height), row = place % height;
    const whole = row === 0 ? Math.floor(rest / height) : 0;
    const pixels = whole ? whole * height : Math.min(height - row, rest);
    path.rect(column, row, Math.max(1, whole), whole ? height : pixels);
    place += pixels;
    rest -= pixels;
  }
}
