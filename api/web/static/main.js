// Starts the sections that this page has.

import { startShots } from "./shots.js";
import { startSearch } from "./search.js";
import { startLiveUpdates } from "./live_update.js";
import { startMasks } from "./masks.js";
import { startScenes } from "./scenes.js";
import { startSubmitForm } from "./submit_form.js";
import { startSummary } from "./summary.js";

let view = null, attachScenes = null; // the view of the shots; the function that draws scenes over it

function startShotsSection() {
  const section = document.getElementById("film");
  view = section && startShots(section);
  if (view) attachScenes?.(view);
}

function startScenesSection() {
  const section = document.getElementById("scenes");
  attachScenes?.(null);
  document.querySelector("#film #scene-tools")?.remove(); // drawn by the scenes that are replaced
  attachScenes = section && startScenes(section);
  if (view) attachScenes?.(view);
}

/** Returns a function that starts the section with this id, if the page has it. */
function createStarter(id, start) {
  return () => {
    const section = document.getElementById(id);
    if (section) start(section);
  };
}

const starters = {
  "film-place": startShotsSection,
  "scenes-place": startScenesSection,
  "summary-place": createStarter("summary", startSummary),
  "masks-place": createStarter("masks", startMasks),
  "likeness-place": createStarter("likeness", startSearch),
};
const refresh = startLiveUpdates((place) => starters[place.id]?.());
const form = document.getElementById("submit");
if (form) startSubmitForm(form, refresh);
for (const start of Object.values(starters)) start();
