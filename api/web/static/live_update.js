// Keeps the parts of the page marked `data-live` up to date: the page is fetched again, and what changed is replaced.
// `data-pace` is the interval in ms; a page without it will not change any more.

const MAX_INTERVAL_MS = 30_000;
const ANNOUNCE_INTERVAL_MS = 20_000;
const statusLine = document.getElementById("said");
let announcedAt = 0;

/** Starts; `replaced(part)` is called with each part marked `data-whole` that was replaced. Returns a function that
 * refreshes the page at once. */
export function startLiveUpdates(replaced) {
  let drawn = readLiveParts(document); // before anything else changes the page
  let timer, failures = 0, busy = false;
  localizeTimes();

  async function refreshPage() {
    clearTimeout(timer);
    if (busy) return;
    busy = true;
    try {
      const fresh = await fetchPage();
      const before = readJobStates();
      drawn = replaceChangedParts(drawn, fresh, replaced);
      localizeTimes();
      announceChanges(before, readJobStates(), failures > 0);
      failures = 0;
    } catch (error) {
      failures += 1;
      statusLine.textContent = `No news from the server (${error.message}); trying again.`;
    }
    statusLine.classList.toggle("unseen", failures === 0);
    busy = false;
    scheduleRefresh();
  }

  function scheduleRefresh() {
    const pace = Math.min(...[...document.querySelectorAll("[data-pace]")].map((part) => Number(part.dataset.pace)));
    if (!Number.isFinite(pace)) return;
    const slow = document.hidden ? MAX_INTERVAL_MS : pace * 2 ** failures;
    timer = setTimeout(refreshPage, Math.min(MAX_INTERVAL_MS, slow));
  }

  document.addEventListener("visibilitychange", () => {
    clearTimeout(timer);
    if (document.hidden) scheduleRefresh();
    else if (document.querySelector("[data-pace]")) refreshPage();
  });
  scheduleRefresh();
  return refreshPage;
}

/** Fetches this page as it is now; the cache of the browser answers where nothing has changed. */
async function fetchPage() {
  const answer = await fetch(location.href, { cache: "no-cache" });
  if (answer.status === 401) location.reload(); // to the sign-in form
  if (!answer.ok) throw new Error(`status ${answer.status}`);
  return new DOMParser().parseFromString(await answer.text(), "text/html");
}

/** Returns the live parts of a page by id, as the server rendered them. */
function readLiveParts(page) {
  return new Map([...page.querySelectorAll("[data-live]")].map((part) => [part.id, part.outerHTML]));
}

function replaceChangedParts(drawn, fresh, replaced) {
  const now = readLiveParts(fresh);
  for (const part of fresh.querySelectorAll("[data-live]")) {
    if (drawn.get(part.id) === now.get(part.id)) continue;
    const shown = document.getElementById(part.id);
    if ("whole" in part.dataset) {
      shown.replaceChildren(...part.childNodes);
      replaced(shown);
    } else {
      morphElement(shown, part);
    }
  }
  return now;
}

/** Changes an element into another one, and only where they differ: focus, selection and open details stay. */
function morphElement(old, next) {
  for (const { name } of [...old.attributes]) {
    if (!next.hasAttribute(name) && name !== "open") old.removeAttribute(name);
  }
  for (const { name, value } of next.attributes) {
    if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  const wantedIds = new Set([...next.children].map((child) => child.id));
  for (const child of [...old.children]) if (child.id && !wantedIds.has(child.id)) child.remove();
  const named = new Map([...old.children].filter((child) => child.id).map((child) => [child.id, child]));
  let at = old.firstChild;
  for (const wanted of [...next.childNodes]) {
    const found = wanted.id ? named.get(wanted.id) : sameKind(at, wanted) ? at : null;
    while (found && at !== found && !at.id) at = removeNode(at); // moving a node would take its focus: remove those before it instead
    if (found && found === at) at = at.nextSibling;
    else old.insertBefore(found ?? document.importNode(wanted, true), at);
    if (found?.nodeType === Node.ELEMENT_NODE) morphElement(found, wanted);
    else if (found && found.nodeValue !== wanted.nodeValue) found.nodeValue = wanted.nodeValue;
  }
  while (at) at = removeNode(at);
}

/** Removes a node; returns the one after it. */
function removeNode(node) {
  const next = node.nextSibling;
  node.remove();
  return next;
}

function sameKind(one, other) {
  return one !== null && one.nodeName === other.nodeName && !one.id && !other.id;
}

/** Shows times in the time zone and the format of the reader. */
function localizeTimes() {
  for (const time of document.querySelectorAll("time")) {
    const words = new Date(time.dateTime).toLocaleString([], { dateStyle: "medium", timeStyle: "short" });
    if (time.textContent !== words) time.textContent = words;
  }
}

/** Returns name and state of each job on the page, by id. */
function readJobStates() {
  return new Map([...document.querySelectorAll("#job, .job")].map((part) => [
    part.id, `${part.querySelector("h1, .name").textContent}: ${part.querySelector(".badge").textContent}`,
  ]));
}

/** Announces new states at once, and progress now and then, to screen readers. */
function announceChanges(before, after, back) {
  const news = [...after].filter(([id, words]) => before.has(id) && before.get(id) !== words).map(([, words]) => words);
  const pace = document.getElementById("pace")?.textContent.trim();
  if (!news.length && pace && Date.now() - announcedAt > ANNOUNCE_INTERVAL_MS) news.push(pace);
  if (news.length) announcedAt = Date.now();
  if (news.length || back) statusLine.textContent = news.join(". ");
}
