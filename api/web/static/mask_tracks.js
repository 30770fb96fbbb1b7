// A file of tracks (JSON lines, sorted by time), read by ranges as a film is watched, and masks out of run lengths.

const CHUNK = 1 << 18; // bytes asked for at a time
const KEPT = 24; // chunks
const AHEAD = 2; // chunks that are read beyond the one at hand
const HAIR = 0.0005; // seconds: the times of lines have six decimals, those of players are as good

/** The lines of a file at an address: `at(seconds)` gives those of the frame shown then, or null while they are not
 * there yet; `changed(error)` is called when some have come, or could not be read. `since` and `until` are the times
 * between which the file has lines. */
export function tracks(address, size, since, until, changed) {
  const state = {
    address, size, since, until, changed,
    last: Math.max(0, Math.ceil(size / CHUNK) - 1),
    raw: new Map(), chunks: new Map(), // number -> its bytes, its lines, to come
    lines: [], first: 0, end: -1, // what is at hand: the lines of these chunks
    busy: false, wanted: null, tried: null,
  };
  return { at: (seconds) => at(state, seconds + HAIR) };
}

function at(state, seconds) {
  const { lines } = state, place = lastBefore(lines, seconds);
  const frame = lines[place]?.frame, more = state.end < state.last;
  const cut = place < 0 || (more && frame === lines.at(-1).frame) || (state.first > 0 && frame === lines[0].frame);
  if (cut && state.tried !== seconds) {
    bring(state, seconds);
    return null;
  }
  if (more && lines[place]?.chunk >= state.end - AHEAD / 2) bring(state, seconds);
  let from = Math.max(0, place);
  while (from > 0 && lines[from - 1].frame === frame) from -= 1;
  return lines.slice(from, place + 1);
}

/** Number of the last line at or before a time; -1 where there is none. */
function lastBefore(lines, seconds) {
  let low = -1, high = lines.length - 1;
  while (low < high) {
    const middle = Math.ceil((low + high) / 2);
    if (lines[middle].seconds <= seconds) low = middle;
    else high = middle - 1;
  }
  return low;
}

/** Brings the lines around a time; the latest time asked for is the one that counts. */
async function bring(state, seconds) {
  state.wanted = seconds;
  if (state.busy) return;
  state.busy = true;
  try {
    while (state.wanted !== null) {
      const time = state.wanted;
      state.wanted = null;
      const found = await find(state, time);
      const first = Math.max(0, found - 1), end = Math.min(state.last, found + AHEAD);
      const numbers = Array.from({ length: end - first + 1 }, (_, after) => first + after);
      const parts = await Promise.all(numbers.map((number) => chunk(state, number)));
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
async function find(state, seconds) {
  let low = 0, high = state.last, step = 1, later = false, earlier = false;
  let middle = Math.round(((seconds - state.since) / (state.until - state.since || 1)) * high);
  while (low < high) {
    middle = Math.min(high, Math.max(low + 1, middle));
    if (await begins(state, middle) <= seconds) [low, later] = [middle, true];
    else [high, earlier] = [middle - 1, true];
    if (later && earlier) middle = Math.ceil((low + high) / 2);
    else middle = later ? low + step : high + 1 - step;
    step *= 2;
  }
  return low;
}

/** Time of the first line of a chunk; of one before, where a line is longer than a chunk. */
async function begins(state, number) {
  for (let one = number; one > 0; one -= 1) {
    const [first] = await chunk(state, one);
    if (first) return first.seconds;
  }
  return -Infinity;
}

/** The lines that begin after a line end within a chunk; in the first one, also at its start. */
function chunk(state, number) {
  return kept(state.chunks, number, () => read(state, number));
}

async function read(state, number) {
  let data = await bytes(state, number), end = number;
  const start = number === 0 ? 0 : data.indexOf(10) + 1;
  if (number > 0 && start === 0) return [];
  while (end < state.last && data.indexOf(10, CHUNK) < 0) { // the last line goes on
    end += 1;
    const more = await bytes(state, end), whole = new Uint8Array(data.length + more.length);
    whole.set(data);
    whole.set(more, data.length);
    data = whole;
  }
  const stop = data.indexOf(10, CHUNK);
  const text = new TextDecoder().decode(data.subarray(start, stop < 0 ? data.length : stop));
  return text.split("\n").filter(Boolean).map((line) => ({ ...JSON.parse(line), chunk: number }));
}

function bytes(state, number) {
  return kept(state.raw, number, async () => {
    const first = number * CHUNK, last = Math.min(state.size, first + CHUNK) - 1;
    const answer = await fetch(state.address, { headers: { Range: `bytes=${first}-${last}` } });
    if (answer.status !== 206) throw new Error(`status ${answer.status}`);
    return new Uint8Array(await answer.arrayBuffer());
  });
}

/** What is kept under a number, or made; the one not used for longest goes first, and what fails is tried again. */
function kept(known, number, make) {
  const found = known.get(number) ?? make();
  known.delete(number);
  known.set(number, found);
  while (known.size > KEPT) known.delete(known.keys().next().value);
  found.catch(() => known.delete(number));
  return found;
}

/** Lengths of the runs of a mask, the first one outside it: COCO's compressed form, six bits a character, of which five
 * are digits and one says that more follow; from the third on, each is the difference to the one but last. */
export function runs(counts) {
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

/** A mask as a path in its own pixels. Runs go down column by column. */
export function outline({ size: [height], counts }) {
  const path = new Path2D();
  let place = 0;
  runs(counts).forEach((length, number) => {
    if (number % 2) addRun(path, place, length, height);
    place += length;
  });
  return path;
}

function addRun(path, from, length, height) {
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
