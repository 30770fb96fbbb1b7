// Starts what the page at hand has.

import { film } from "./film.js";
import { live } from "./live.js";
import { submit } from "./submit.js";

function startFilm() {
  const section = document.getElementById("film");
  if (section) film(section);
}

const refresh = live((place) => {
  if (place.id === "film-place") startFilm();
});
const form = document.getElementById("submit");
if (form) submit(form, refresh);
startFilm();
