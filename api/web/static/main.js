// Starts what the page at hand has.

import { film } from "./shots.js";
import { likeness } from "./search.js";
import { live } from "./live_update.js";
import { masks } from "./masks.js";
import { scenes } from "./scenes.js";
import { submit } from "./submit_form.js";
import { summary } from "./summary.js";

let view = null, attach = null; // the film, and what brings the scenes over it

function startFilm() {
  const section = document.getElementById("film");
  view = section && film(section);
  if (view) attach?.(view);
}

function startScenes() {
  const section = document.getElementById("scenes");
  attach?.(null);
  document.querySelector("#film #scene-tools")?.remove(); // those of the scenes before
  attach = section && scenes(section);
  if (view) attach?.(view);
}

/** What starts a section by its id, where it is there. */
function starting(id, start) {
  return () => {
    const section = document.getElementById(id);
    if (section) start(section);
  };
}

const starts = {
  "film-place": startFilm,
  "scenes-place": startScenes,
  "summary-place": starting("summary", summary),
  "masks-place": starting("masks", masks),
  "likeness-place": starting("likeness", likeness),
};
const refresh = live((place) => starts[place.id]?.());
const form = document.getElementById("submit");
if (form) submit(form, refresh);
for (const start of Object.values(starts)) start();
