// Two runs on one video as lanes on one time line: a click plays the video from there and marks what is paired.

import { createPlayer } from "/web/player.js";

const section = document.getElementById("diff");
if (section) startDiff(section);

function startDiff(section) {
  const video = section.querySelector("#player"), duration = Number(section.dataset.duration);
  const lanes = [...section.querySelectorAll(".lanes")].map((frame) => layOutLanes(frame, duration));
  const player = createPlayer(video, Number(section.dataset.offset), () => followPlayback(lanes, player.seconds(), duration));
  for (const lane of lanes) addListeners(section, lane, player);
  const zoom = section.querySelector("#zoom");
  zoom.addEventListener("input", () => {
    for (const { frame, wide, now } of lanes) {
      wide.style.width = `${zoom.value * 100}%`;
      frame.scrollLeft = now.offsetLeft - frame.clientWidth / 2;
    }
  });
  zoom.closest(".zoom").hidden = false;
}

/** Places each block by its times, and a mark at the position of the player. */
function layOutLanes(frame, duration) {
  const wide = frame.querySelector(".wide"), blocks = [...frame.querySelectorAll(".block")];
  for (const block of blocks) {
    const { start, end } = block.dataset;
    block.style.left = `${(start / duration) * 100}%`;
    block.style.width = `${((end - start) / duration) * 100}%`;
    block.tabIndex = -1;
  }
  if (blocks.length) blocks[0].tabIndex = 0; // one stop for the tab key; arrows go from there
  const now = Object.assign(document.createElement("div"), { className: "now" });
  wide.append(now);
  frame.classList.add("placed");
  return { frame, wide, blocks, now };
}

function followPlayback(lanes, seconds, duration) {
  if (seconds === null) return;
  for (const { now } of lanes) now.style.left = `${Math.min(1, seconds / duration) * 100}%`;
}

function addListeners(section, lane, player) {
  lane.frame.addEventListener("click", (event) => {
    const block = event.target.closest(".block");
    if (!block || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    selectBlock(section, lane, block);
    player.goTo(Number(block.dataset.start), true);
    player.video.scrollIntoView({ block: "nearest" });
  });
  lane.frame.addEventListener("keydown", (event) => {
    const block = event.target.closest(".block"), step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    const across = { ArrowDown: 1, ArrowUp: 0 }[event.key];
    if (!block || (step === undefined && across === undefined)) return;
    event.preventDefault();
    const next = step === undefined ? matchingBlock(lane, block, across) : nextBlock(block, step);
    if (!next) return;
    selectBlock(section, lane, next);
    next.focus();
  });
}

/** Returns the next block of the same lane. */
function nextBlock(block, step) {
  const item = block.closest("li");
  return (step > 0 ? item.nextElementSibling : item.previousElementSibling)?.querySelector(".block");
}

/** Returns the paired block of the other lane, else the block there at the start of this one. */
function matchingBlock(lane, block, side) {
  const other = lane.frame.querySelector(`[data-side="${side}"]`);
  const mate = other.querySelector(`[data-pair="${block.dataset.pair}"]`);
  const start = Number(block.dataset.start);
  return mate ?? [...other.querySelectorAll(".block")].findLast((one) => Number(one.dataset.start) <= start);
}

function selectBlock(section, lane, block) {
  for (const one of section.querySelectorAll(".block[aria-current], .block.mate")) {
    one.removeAttribute("aria-current");
    one.classList.remove("mate");
  }
  for (const one of lane.blocks) {
    one.tabIndex = one === block ? 0 : -1;
    if (one !== block && one.dataset.pair === block.dataset.pair) one.classList.add("mate");
  }
  block.setAttribute("aria-current", "true");
}
