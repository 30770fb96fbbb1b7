// Keeps the parts of the page that are marked `data-live` as the server draws them now: the page is fetched again, and
// what changed is taken over. `data-pace` says how often (ms); a page without it has come to its end.

const LONGEST_PAUSE = 30_000;
const SPEAK_EVERY = 20_000;
const said = document.getElementById("said");
let spokeAt = 0;

/** Starts; `replaced(part)` is called with each part marked `data-whole` that was replaced. Returns "look now". */
export function live(replaced) {
  let drawn = parts(document); // before anything else changes the page
  let timer, failures = 0, busy = false;
  localTimes();

  async function look() {
    clearTimeout(timer);
    if (busy) return;
    busy = true;
    try {
      const fresh = await page();
      const before = states();
      drawn = takeOver(drawn, fresh, replaced);
      localTimes();
      speak(before, states(), failures > 0);
      failures = 0;
    } catch (error) {
      failures += 1;
      said.textContent = `No news from the server (${error.message}); trying again.`;
    }
    said.classList.toggle("unseen", failures === 0);
    busy = false;
    plan();
  }

  function plan() {
    const pace = Math.min(...[...document.querySelectorAll("[data-pace]")].map((part) => Number(part.dataset.pace)));
    if (!Number.isFinite(pace)) return;
    const slow = document.hidden ? LONGEST_PAUSE : pace * 2 ** failures;
    timer = setTimeout(look, Math.min(LONGEST_PAUSE, slow));
  }

  document.addEventListener("visibilitychange", () => {
    clearTimeout(timer);
    if (document.hidden) plan();
    else if (document.querySelector("[data-pace]")) look();
  });
  plan();
  return look;
}

/** This page as the server draws it now; the browser's cache answers where nothing changed. */
async function page() {
  const answer = await fetch(location.href, { cache: "no-cache" });
  if (answer.status === 401) location.reload(); // the way in
  if (!answer.ok) throw new Error(`status ${answer.status}`);
  return new DOMParser().parseFromString(await answer.text(), "text/html");
}

/** The live parts of a page, as the server drew them. */
function parts(page) {
  return new Map([...page.querySelectorAll("[data-live]")].map((part) => [part.id, part.outerHTML]));
}

function takeOver(drawn, fresh, replaced) {
  const now = parts(fresh);
  for (const part of fresh.querySelectorAll("[data-live]")) {
    if (drawn.get(part.id) === now.get(part.id)) continue;
    const shown = document.getElementById(part.id);
    if ("whole" in part.dataset) {
      shown.replaceChildren(...part.childNodes);
      replaced(shown);
    } else {
      become(shown, part);
    }
  }
  return now;
}

/** Makes an element like another and touches nothing that is so already: focus, selection and open details stay. */
function become(old, next) {
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
    const found = wanted.id ? named.get(wanted.id) : alike(at, wanted) ? at : null;
    while (found && at !== found && !at.id) at = without(at); // what is moved loses the focus: clear its way instead
    if (found && found === at) at = at.nextSibling;
    else old.insertBefore(found ?? document.importNode(wanted, true), at);
    if (found?.nodeType === Node.ELEMENT_NODE) become(found, wanted);
    else if (found && found.nodeValue !== wanted.nodeValue) found.nodeValue = wanted.nodeValue;
  }
  while (at) at = without(at);
}

/** Removes a node; the one after it. */
function without(node) {
  const next = node.nextSibling;
  node.remove();
  return next;
}

function alike(one, other) {
  return one !== null && one.nodeName === other.nodeName && !one.id && !other.id;
}

/** Times in the reader's own zone and habit. */
function localTimes() {
  for (const time of document.querySelectorAll("time")) {
    const words = new Date(time.dateTime).toLocaleString([], { dateStyle: "medium", timeStyle: "short" });
    if (time.textContent !== words) time.textContent = words;
  }
}

/** Name and state of each job on the page. */
function states() {
  return new Map([...document.querySelectorAll("#job, .job")].map((part) => [
    part.id, `${part.querySelector("h1, .name").textContent}: ${part.querySelector(".badge").textContent}`,
  ]));
}

/** Says new states at once, and how far a job is now and then. */
function speak(before, after, back) {
  const news = [...after].filter(([id, words]) => before.has(id) && before.get(id) !== words).map(([, words]) => words);
  const pace = document.getElementById("pace")?.textContent.trim();
  if (!news.length && pace && Date.now() - spokeAt > SPEAK_EVERY) news.push(pace);
  if (news.length) spokeAt = Date.now();
  if (news.length || back) said.textContent = news.join(". ");
}
