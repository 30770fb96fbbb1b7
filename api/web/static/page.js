// Starts what the page at hand has.

import { film } from "./film.js";
import { live } from "./live.js";
import { scenes } from "./scenes.js";
import { submit } from "./submit.js";

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

const refresh = live((place) => {
  if (place.id === "film-place") startFilm();
  if (place.id === "scenes-place") startScenes();
});
const form = document.getElementById("submit");
if (form) submit(form, refresh);
startFilm();
startScenes();
