"""Masks over a video: each in its place and colour, with the very frame; toggled; and a long file read in parts."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from playwright.sync_api import Page, expect
from pycocotools import mask as coco
from sqlalchemy import Engine

from shared.storage import ContentStorage
from shared.values import Job, Result, Timeline
from shared.values.tracks import JSON_LINES_MEDIA_TYPE, QUERY_COLOURS, TrackFrame
from tests.api.conftest import finish_run, make_video_file, store_artifact
from tests.browser.conftest import GREY_VIDEO, OpenPage, create_job, fits_width, read_level, wait, wait_for_condition
from tests.support import factories
from worker.video.reader import VideoReader

pytestmark = pytest.mark.browser

Mask = npt.NDArray[np.uint8]
H264 = ["-c:v", "libx264", "-bf", "2", "-qp", "4"]
WIDE, HIGH = 320, 192
LARGER = [option.replace("64x64", f"{WIDE}x{HIGH}") for option in GREY_VIDEO]


def line_of(query: int, frame: int, mask: Mask) -> TrackFrame:
    """As the room writes it."""
    packed = coco.encode(np.asfortranarray(mask))
    box = tuple(int(part) for part in coco.toBbox(packed)) if mask.any() else None
    height, width = mask.shape
    return TrackFrame(
        query, frame, 0.5 + frame / 1000, 7, int(mask.sum()), box, (height, width), packed["counts"].decode()
    )  # fmt: skip


def create_tracked_job(
    database: Engine, files: ContentStorage, video_path: Path, queries: Sequence[str], span: tuple[int, int],
    drawn: Callable[[int, int], Mask], overlay: Path | None = None,
) -> Job:  # fmt: skip
    """A job whose frames `span` of a video have a mask for each query, `drawn(query, frame)`; and an overlay video."""
    job = create_job(database, files, video_path, factories.make_analysis("mttr", queries=tuple(queries)))
    with VideoReader(video_path) as reader:
        assert sum(1 for _ in reader.read_frames()) >= span[1]
        line = reader.timeline
    lines = video_path.with_suffix(".jsonl")
    with lines.open("w") as out:
        for frame in range(*span):
            for query in range(len(queries)):
                out.write(
                    json.dumps(line_of(query, frame, drawn(query, frame)).to_timed_dict(line.moment_at(frame))) + "\n"
                )
    made = [store_artifact(files, lines, "tracks", JSON_LINES_MEDIA_TYPE)]
    made += [store_artifact(files, overlay, "overlay_video", "video/mp4")] if overlay else []
    finish_run(database, job, "mttr", rows(queries, line, span), made)
    return job


def rows(queries: Sequence[str], line: Timeline, span: tuple[int, int]) -> list[Result]:
    said: dict[str, Any] = {"frames_visible": 5, "mean_area": 1.0, "switches": [], "windows": 1}
    return [
        Result("track", seq, line.time_range(*span), 0.5, {"query": query, "colour": list(QUERY_COLOURS[seq]), **said})
        for seq, query in enumerate(queries)
    ]


def blocks(query: int, frame: int) -> Mask:
    """Query 0: a block of 80 x 60 that moves right by two pixels a frame; query 1: the last ten rows; 2: nothing."""
    mask = np.zeros((HIGH, WIDE), np.uint8)
    if query == 0:
        mask[50:110, 2 * frame : 2 * frame + 80] = 1
    elif query == 1:
        mask[182:] = 1
    return mask


@pytest.fixture(scope="module")
def masked_job(database: Engine, files: ContentStorage, tmp_path_factory: pytest.TempPathFactory) -> Job:
    """Frames 20 to 80 of four seconds of grey, where frame n is of level 2n; the video does not start at 0."""
    video_path = make_video_file(
        tmp_path_factory.mktemp("masks") / "grey.mp4", *LARGER, *H264, "-output_ts_offset", "3"
    )
    return create_tracked_job(database, files, video_path, ["the <block>", "the floor", "a bird"], (20, 80), blocks)


def pixel(page: Page, x: int, y: int) -> list[int]:
    """Of the canvas: red, green, blue, alpha. Of a copy, since Chromium warns of reading what is drawn for a screen."""
    return page.evaluate(
        "([x, y]) => { const c = document.createElement('canvas').getContext('2d');"
        " c.drawImage(over, -x, -y); return [...c.getImageData(0, 0, 1, 1).data]; }",
        [x, y],
    )


def drawn_frame(page: Page) -> int:
    """Number of the frame whose masks are on the canvas; it has to be the one that the player shows."""
    wait_for_condition(page, "!masked.seeking && over.dataset.frame !== ''")
    wait(page, "the masks are those of the frame on the screen", lambda: read_level(page, "masked") == _frame(page))
    return _frame(page)


def _frame(page: Page) -> int:
    return int(page.locator("#over").get_attribute("data-frame") or -1)


def near(found: list[int], colour: Sequence[int]) -> bool:
    return found[3] > 100 and max(abs(a - b) for a, b in zip(found, colour, strict=False)) <= 3


@pytest.mark.parametrize(("width", "height", "scheme"), [(1200, 900, "light"), (375, 800, "dark")])
def test_masks_are_drawn_over_the_video(
    width: int, height: int, scheme: str, visit: OpenPage, masked_job: Job, tmp_path: Path
) -> None:
    page = visit(f"/jobs/{masked_job.id}", width, height, scheme)
    assert drawn_frame(page) == 20
    page.screenshot(path=tmp_path / "masks.png", full_page=True)
    assert near(pixel(page, 90, 80), QUERY_COLOURS[0])
    assert near(pixel(page, 200, 187), QUERY_COLOURS[1])
    assert pixel(page, 200, 80)[3] == pixel(page, 30, 80)[3] == pixel(page, 90, 120)[3] == 0
    canvas, player = (page.locator(one).bounding_box() for one in ("#over", "#masked"))
    assert canvas == player
    expect(page.locator("#masks .meta")).to_have_text("3 queries, 2.4 s from 00:00:00:20")
    expect(page.locator("#queries .now span")).to_have_text(
        ["0.520, 80 x 60 at 40, 50", "0.520, 320 x 10 at 0, 182", "0.520, nothing"]
    )
    assert fits_width(page)


def test_each_query_can_be_switched_off(visit: OpenPage, masked_job: Job) -> None:
    page = visit(f"/jobs/{masked_job.id}")
    drawn_frame(page)
    page.get_by_label("the <block>").uncheck()
    assert pixel(page, 90, 80)[3] == 0
    assert near(pixel(page, 200, 187), QUERY_COLOURS[1])
    page.get_by_label("the floor").focus()
    page.keyboard.press("Space")
    assert pixel(page, 200, 187)[3] == 0
    page.get_by_label("the <block>").check()
    assert near(pixel(page, 90, 80), QUERY_COLOURS[0])


def test_masks_follow_the_video(visit: OpenPage, masked_job: Job) -> None:
    page = visit(f"/jobs/{masked_job.id}")
    first = drawn_frame(page)
    page.evaluate("void masked.play()")
    wait_for_condition(page, "Number(over.dataset.frame) > 40")
    page.evaluate("masked.pause()")
    frame = drawn_frame(page)
    assert frame > first
    assert near(pixel(page, 2 * frame + 4, 80), QUERY_COLOURS[0])
    assert pixel(page, 2 * frame - 4, 80)[3] == 0
    page.evaluate("masked.currentTime += 3")  # beyond the range that was looked at
    wait_for_condition(page, "!masked.seeking && over.dataset.frame === ''")
    assert pixel(page, 200, 187)[3] == 0
    expect(page.locator("#queries .now span").first).to_have_text("")


def test_a_long_file_is_read_in_parts(visit: OpenPage, database: Engine, files: ContentStorage, tmp_path: Path) -> None:
    """Only what is watched is loaded, wherever one goes, also where a frame's lines lie on both sides of a part."""
    video_path = make_video_file(
        tmp_path / "long.mp4", "-f", "lavfi", "-i", "testsrc=size=96x96:rate=25:duration=60", "-g", "25"
    )  # fmt: skip
    noise = np.random.default_rng(7).integers(0, 2, (96, 96), np.uint8)

    def drawn(query: int, frame: int) -> Mask:
        """Noise, and in row 80 one pixel that says which frame it is."""
        mask = np.roll(noise, frame, axis=1) if query == 0 or frame % 3 else noise * 0
        mask[70:90] = 0
        mask[80, frame % 96] = query == 0
        return mask

    job = create_tracked_job(database, files, video_path, ["noise", "more"], (0, 1500), drawn)
    page = visit(f"/jobs/{job.id}")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.headers.get("range", "")))
    size = int(page.locator("#masks").get_attribute("data-size") or 0)
    assert size > 5_000_000
    wait_for_condition(page, "over.dataset.frame === '0'")
    for frame in (1200, 1201, 37, 1499, 702, 1203):
        page.evaluate("(frame) => { masked.currentTime = (frame + 0.5) / 25; }", frame)
        wait_for_condition(page, f"over.dataset.frame === '{frame}'")
        assert [x for x in range(3, 93) if pixel(page, x, 80)[3] > 100] == [frame % 96]
    parts = [one for one in asked if one.startswith("bytes=")]
    got = sum(int(end) - int(start) for start, end in (one[6:].split("-") for one in parts if not one.endswith("-")))
    assert 0 < got < size / 2


def test_a_video_that_the_browser_cannot_play(
    visit: OpenPage, database: Engine, files: ContentStorage, tmp_path: Path
) -> None:
    """Then the overlay video is played, and nothing drawn over it."""
    video_path = make_video_file(tmp_path / "film.mp4", *LARGER, "-c:v", "mpeg4")
    overlay = make_video_file(tmp_path / "overlay.mp4", *GREY_VIDEO, *H264)
    page = visit(f"/jobs/{create_tracked_job(database, files, video_path, ['a'], (0, 5), blocks, overlay).id}")
    expect(page.locator("#masks .error")).to_contain_text("This browser cannot play the video: here is the one with")
    wait_for_condition(page, "masked.readyState >= 2 && masked.videoWidth === 64")
    expect(page.locator("#over")).to_be_hidden()
