// The form: choose or drop a video, send it with visible progress, then ask for the models chosen.

/** Starts the form; `submitted()` is called once the job is accepted. */
export function startSubmitForm(form, submitted) {
  const file = form.querySelector("#file"), outcome = form.querySelector("#outcome");
  const button = form.querySelector("[type=submit]"), stop = form.querySelector("#stop");
  const bar = form.querySelector("#sent");
  const attempt = { video: null, videoId: null, body: null, key: null }; // kept, so that a second try does not upload again
  let activeRequest = null;

  function setBusy(on) {
    button.disabled = file.disabled = on;
    stop.hidden = bar.hidden = !on;
  }

  async function sendJob() {
    const video = file.files[0], analyses = readAnalyses(form);
    if (!analyses.length) throw new Error("Choose a model.");
    if (attempt.video !== video) Object.assign(attempt, { video, videoId: null });
    attempt.videoId ??= (await uploadVideo(video, (request) => { activeRequest = request; }, (part) => showProgress(part))).id;
    activeRequest = null;
    const body = JSON.stringify({ video_id: attempt.videoId, analyses });
    if (attempt.body !== body) Object.assign(attempt, { body, key: newIdempotencyKey() });
    const job = await createJob(body, attempt.key);
    attempt.body = null;
    return job;
  }

  function showProgress(part) {
    if (part < 1) {
      bar.value = part;
      outcome.textContent = `Sending: ${Math.floor(part * 100)} %`;
    } else {
      bar.removeAttribute("value"); // indeterminate: how long the probe takes is not known
      outcome.textContent = "Looking at the video …";
    }
  }

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    clearFaults(form);
    outcome.className = "grow";
    showProgress(0);
    setBusy(true);
    try {
      const job = await sendJob();
      outcome.replaceChildren("Accepted: ", createLink(`/jobs/${job.id}`, file.files[0].name));
      await submitted();
    } catch (error) {
      outcome.className = "grow error";
      outcome.textContent = error.message;
      showFaults(form, error.faults ?? []);
    }
    setBusy(false);
  });
  stop.addEventListener("click", () => activeRequest?.abort());
  file.addEventListener("change", () => { form.querySelector("#chosen").textContent = describeFile(file.files[0]); });
  addDropTarget(form.querySelector(".drop"), file);
  requireChosenFields(form);
  form.hidden = false;
}

/** Makes the required parameters of chosen models required in the form; those of other models are not. */
function requireChosenFields(form) {
  for (const part of form.querySelectorAll("[data-model]")) {
    const box = part.querySelector("[name=model]"), required = [...part.querySelectorAll("[data-required]")];
    const follow = () => {
      for (const field of required) field.required = box.checked;
      if (required.length && box.checked) part.querySelector("details").open = true;
    };
    box.addEventListener("change", follow);
    follow();
  }
  form.addEventListener("invalid", (event) => {
    const hidden = event.target.closest("details");
    if (hidden) hidden.open = true; // or the browser cannot show the message
  }, { capture: true });
}

/** Returns the chosen models with the parameters of their fields. */
function readAnalyses(form) {
  return [...form.querySelectorAll("[data-model]")]
    .filter((part) => part.querySelector("[name=model]").checked)
    .map((part) => ({ model: part.dataset.model, params: readParams(part) }));
}

function readParams(part) {
  const found = {};
  for (const field of part.querySelectorAll("[data-kind]")) {
    const value = readField(field);
    if (value !== undefined) found[field.name] = value;
  }
  return found;
}

/** Returns the value of a field in the type of its parameter; undefined (the default) for an empty one. */
function readField(field) {
  if (field.dataset.kind === "boolean") return field.checked;
  if (field.value.trim() === "") return undefined;
  switch (field.dataset.kind) {
    case "number": case "integer": return Number(field.value);
    case "lines": return field.value.split("\n").map((line) => line.trim()).filter(Boolean);
    case "json": return parseJson(field);
    default: return field.value;
  }
}

function parseJson(field) {
  try {
    return JSON.parse(field.value);
  } catch {
    throw new Error(`${field.name} is not JSON.`);
  }
}

/** Uploads the file by XMLHttpRequest: fetch does not report how much was sent. */
function uploadVideo(video, started, progress) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", `/v1/videos?name=${encodeURIComponent(video.name)}`);
    request.setRequestHeader("Content-Type", video.type.startsWith("video/") ? video.type : "application/octet-stream");
    request.upload.addEventListener("progress", (event) => progress(event.total ? event.loaded / event.total : 0));
    request.upload.addEventListener("load", () => progress(1));
    request.addEventListener("load", () => settleResponse(request.status, request.responseText, resolve, reject));
    request.addEventListener("error", () => reject(new Error("The connection broke off; send it again.")));
    request.addEventListener("abort", () => reject(new Error("The upload was stopped.")));
    started(request);
    request.send(video);
  });
}

async function createJob(body, key) {
  const headers = { "Content-Type": "application/json", "Idempotency-Key": key };
  const answer = await fetch("/v1/jobs", { method: "POST", headers, body });
  const text = await answer.text();
  return new Promise((resolve, reject) => { settleResponse(answer.status, text, resolve, reject); });
}

/** Resolves with the record of a response, or rejects with its problem. */
function settleResponse(status, text, resolve, reject) {
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
  const models = readAnalyses(form).map((one) => one.model);
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

function addDropTarget(place, file) {
  for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
    document.addEventListener(kind, (event) => { // a video dropped beside the place must not replace the page
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

function describeFile(video) {
  return video ? `${video.name} (${(video.size / 1e6).toFixed(1)} MB)` : "No video chosen";
}

/** Returns an idempotency key; `randomUUID` is missing where the page comes over plain HTTP from another machine. */
function newIdempotencyKey() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

function createLink(href, text) {
  return Object.assign(document.createElement("a"), { href, textContent: text });
}
