// The form: choose or drop a film, send it with visible progress, then ask for the models chosen.

/** Starts the form; `submitted()` is called once a job is in the ledger. */
export function submit(form, submitted) {
  const file = form.querySelector("#file"), outcome = form.querySelector("#outcome");
  const button = form.querySelector("[type=submit]"), stop = form.querySelector("#stop");
  const bar = form.querySelector("#sent");
  const attempt = { film: null, videoId: null, body: null, key: null }; // kept, so that a repeat repeats no upload
  let going = null;

  function working(on) {
    button.disabled = file.disabled = on;
    stop.hidden = bar.hidden = !on;
  }

  async function send() {
    const film = file.files[0], analyses = asked(form);
    if (!analyses.length) throw new Error("Choose a model.");
    if (attempt.film !== film) Object.assign(attempt, { film, videoId: null });
    attempt.videoId ??= (await upload(film, (request) => { going = request; }, (part) => shown(part))).id;
    going = null;
    const body = JSON.stringify({ video_id: attempt.videoId, analyses });
    if (attempt.body !== body) Object.assign(attempt, { body, key: newKey() });
    const job = await createJob(body, attempt.key);
    attempt.body = null;
    return job;
  }

  function shown(part) {
    if (part < 1) {
      bar.value = part;
      outcome.textContent = `Sending: ${Math.floor(part * 100)} %`;
    } else {
      bar.removeAttribute("value"); // how long the probe takes is not known
      outcome.textContent = "Looking at the film …";
    }
  }

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    clearFaults(form);
    outcome.className = "grow";
    shown(0);
    working(true);
    try {
      const job = await send();
      outcome.replaceChildren("Accepted: ", link(`/jobs/${job.id}`, file.files[0].name));
      await submitted();
    } catch (error) {
      outcome.className = "grow error";
      outcome.textContent = error.message;
      showFaults(form, error.faults ?? []);
    }
    working(false);
  });
  stop.addEventListener("click", () => going?.abort());
  file.addEventListener("change", () => { form.querySelector("#chosen").textContent = described(file.files[0]); });
  dropping(form.querySelector(".drop"), file);
  needing(form);
  form.hidden = false;
}

/** A model that is chosen shows what it needs and asks for it before anything is sent; one that is not asks nothing. */
function needing(form) {
  for (const part of form.querySelectorAll("[data-model]")) {
    const box = part.querySelector("[name=model]"), needed = [...part.querySelectorAll("[data-needed]")];
    const follow = () => {
      for (const field of needed) field.required = box.checked;
      if (needed.length && box.checked) part.querySelector("details").open = true;
    };
    box.addEventListener("change", follow);
    follow();
  }
  form.addEventListener("invalid", (event) => {
    const hidden = event.target.closest("details");
    if (hidden) hidden.open = true; // or the browser cannot point at it
  }, { capture: true });
}

/** Models chosen with the parameters that stand in their fields. */
function asked(form) {
  return [...form.querySelectorAll("[data-model]")]
    .filter((part) => part.querySelector("[name=model]").checked)
    .map((part) => ({ model: part.dataset.model, params: params(part) }));
}

function params(part) {
  const found = {};
  for (const field of part.querySelectorAll("[data-kind]")) {
    const value = read(field);
    if (value !== undefined) found[field.name] = value;
  }
  return found;
}

/** What a field says, in the type of its parameter; undefined (the default) for an empty one. */
function read(field) {
  if (field.dataset.kind === "boolean") return field.checked;
  if (field.value.trim() === "") return undefined;
  switch (field.dataset.kind) {
    case "number": case "integer": return Number(field.value);
    case "lines": return field.value.split("\n").map((line) => line.trim()).filter(Boolean);
    case "json": return parsed(field);
    default: return field.value;
  }
}

function parsed(field) {
  try {
    return JSON.parse(field.value);
  } catch {
    throw new Error(`${field.name} is not JSON.`);
  }
}

/** Sends the bytes. XMLHttpRequest, since fetch cannot tell how much has gone out. */
function upload(film, started, progress) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", `/v1/videos?name=${encodeURIComponent(film.name)}`);
    request.setRequestHeader("Content-Type", film.type.startsWith("video/") ? film.type : "application/octet-stream");
    request.upload.addEventListener("progress", (event) => progress(event.total ? event.loaded / event.total : 0));
    request.upload.addEventListener("load", () => progress(1));
    request.addEventListener("load", () => settle(request.status, request.responseText, resolve, reject));
    request.addEventListener("error", () => reject(new Error("The connection broke off; send it again.")));
    request.addEventListener("abort", () => reject(new Error("The upload was stopped.")));
    started(request);
    request.send(film);
  });
}

async function createJob(body, key) {
  const headers = { "Content-Type": "application/json", "Idempotency-Key": key };
  const answer = await fetch("/v1/jobs", { method: "POST", headers, body });
  const text = await answer.text();
  return new Promise((resolve, reject) => { settle(answer.status, text, resolve, reject); });
}

/** An answer of the API: its record, or the problem it tells of. */
function settle(status, text, resolve, reject) {
  if (status >= 200 && status < 300) {
    resolve(JSON.parse(text));
    return;
  }
  let problem = { detail: `The server answered with status ${status}.`, code: "" };
  if (text.startsWith("{")) problem = JSON.parse(text);
  const error = new Error(`${problem.detail}${problem.code ? ` (${problem.code})` : ""}`);
  error.faults = problem.errors ?? [];
  reject(error);
}

/** Puts each fault beside the field that its pointer (`/analyses/0/params/threshold`) means. */
function showFaults(form, faults) {
  const models = asked(form).map((one) => one.model);
  for (const { pointer, detail } of faults) {
    const [, , at, , name] = pointer.split("/");
    const field = document.getElementById(`${models[at]}.${name}`);
    if (!field) continue;
    field.setAttribute("aria-invalid", "true");
    field.title = detail;
    field.closest("details").open = true;
    const note = Object.assign(document.createElement("p"), { className: "error fault", textContent: detail });
    field.closest(".field").append(note);
  }
  form.querySelector("[aria-invalid]")?.focus();
}

function clearFaults(form) {
  for (const note of form.querySelectorAll(".fault")) note.remove();
  for (const field of form.querySelectorAll("[aria-invalid]")) {
    field.removeAttribute("aria-invalid");
    field.removeAttribute("title");
  }
}

function dropping(place, file) {
  for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
    document.addEventListener(kind, (event) => { // a film dropped beside the place must not replace the page
      if (!event.dataTransfer?.types.includes("Files")) return;
      event.preventDefault();
      place.classList.toggle("over", place.contains(event.target) && kind !== "drop" && kind !== "dragleave");
    });
  }
  place.addEventListener("drop", (event) => {
    if (file.disabled || !event.dataTransfer.files.length) return;
    file.files = event.dataTransfer.files;
    file.dispatchEvent(new Event("change"));
  });
}

function described(film) {
  return film ? `${film.name} (${(film.size / 1e6).toFixed(1)} MB)` : "No film chosen";
}

/** A key for one request; `randomUUID` is missing where the page comes over plain HTTP from another machine. */
function newKey() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

function link(href, text) {
  return Object.assign(document.createElement("a"), { href, textContent: text });
}
