"""A summary: its video plays, the curve has what was chosen, and a click on it goes there in the whole video."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import expect
from sqlalchemy import Engine

from shared.storage import ContentStorage
from shared.values import Job, Result
from tests.api.conftest import finish_run, make_video_file, store_artifact
from tests.browser.conftest import (
    GREY_VIDEO,
    OpenPage,
    count_colours,
    create_job,
    fits_width,
    read_level,
    wait_for_condition,
    wait_for_frame,
)
from tests.support import factories
from worker.video.reader import VideoReader
from worker.video.render import concatenate_ranges

pytestmark = pytest.mark.browser

SCORES = [0.2, 0.8, 0.7, 0.1, 0.9, 0.4, 0.3]
"""Of every fifteenth of a hundred frames."""
SEGMENTS = ((0, 15), (15, 45), (45, 100))
CHOSEN = ((15, 45), (60, 75))


@pytest.fixture(scope="module")
def summarized_job(database: Engine, files: ContentStorage, tmp_path_factory: pytest.TempPathFactory) -> Job:
    """Four seconds of grey, where frame n is of level 2n, with the summary video of two highlights."""
    folder = tmp_path_factory.mktemp("summary")
    sound = ["-f", "lavfi", "-i", "sine=440:duration=4", "-c:a", "aac", "-shortest"]
    video_path = make_video_file(folder / "grey.mp4", *GREY_VIDEO, *sound, "-c:v", "libx264", "-bf", "2", "-qp", "4")
    job = create_job(
        database, files, video_path, factories.make_analysis("clip_it", sentences=("a <grey> rabbit", "dusk"))
    )
    with VideoReader(video_path) as reader:
        frames = sum(1 for _ in reader.read_frames())
        line = reader.timeline
        short = concatenate_ranges(reader, [line.time_range(*bound) for bound in CHOSEN], folder / "summary.mp4")
    Image.new("RGB", (64, 64), "navy").save(folder / "poster.jpg")
    starts = list(range(0, frames, 15))
    bounds = zip(starts, [*starts[1:], frames], strict=True)
    rows = [Result("frame_score", seq, line.time_range(*bound), SCORES[seq]) for seq, bound in enumerate(bounds)]
    rows += [
        Result("segment", seq, line.time_range(*bound), 0.5) for seq, bound in enumerate(((0, 15), (15, 45), (45, 100)))
    ]
    rows += [
        Result("highlight", seq, line.time_range(*bound), 0.75, {"segments": [1, 1], "rule": "knapsack"})
        for seq, bound in enumerate(CHOSEN)
    ]
    rows += [
        Result("caption", seq, data={"text": text, "source": "request", "places": 1})
        for seq, text in enumerate(("a <grey> rabbit", "dusk"))
    ]
    made = [
        store_artifact(files, short, "summary_video", "video/mp4"),
        store_artifact(files, folder / "poster.jpg", "poster", "image/jpeg"),
    ]
    finish_run(database, job, "clip_it", rows, made)
    return job


@pytest.mark.parametrize(("width", "height", "scheme"), [(1200, 900, "light"), (375, 800, "dark")])
def test_what_a_summary_looks_like(
    width: int, height: int, scheme: str, visit: OpenPage, summarized_job: Job, tmp_path: Path
) -> None:
    page = visit(f"/jobs/{summarized_job.id}", width, height, scheme)
    wait_for_condition(page, "document.getElementById('summary-film').readyState >= 2")
    page.screenshot(path=tmp_path / "summary.png")
    expect(page.locator("#summary .meta")).to_have_text("2 highlights, 1.8 s of 4.0 s")
    expect(page.locator("#summary q")).to_have_text(["a <grey> rabbit", "dusk"])
    assert page.locator("#summary-film").get_attribute("poster")
    assert page.locator("#score .chosen").evaluate_all("(all) => all.map((one) => one.getAttribute('d'))") == [
        "M0.600000 0H1.800000V10H0.600000Z", "M2.400000 0H3.000000V10H2.400000Z",
    ]  # fmt: skip
    line = page.locator("#score .curve").get_attribute("d") or ""
    heights = [float(part.split("H")[0].split()[1]) for part in line.removeprefix("M").split("L")]
    assert heights == pytest.approx([10 * (0.9 - score) / 0.8 for score in SCORES], abs=1e-3)
    assert count_colours(page, "#score svg") > 8
    assert fits_width(page)


def test_the_summary_plays(visit: OpenPage, summarized_job: Job) -> None:
    """Sound and image, and the curve shows where in the video it is."""
    page = visit(f"/jobs/{summarized_job.id}")
    wait_for_condition(page, "document.getElementById('summary-film').readyState >= 2")
    assert page.evaluate("document.getElementById('summary-film').duration") == pytest.approx(1.8, abs=0.05)
    assert read_level(page, "summary-film") == 15
    page.evaluate("void document.getElementById('summary-film').play()")
    wait_for_condition(page, "document.getElementById('summary-film').currentTime > 1.3")
    page.evaluate("document.getElementById('summary-film').pause()")
    time = page.evaluate("document.getElementById('summary-film').currentTime")
    wait_for_condition(page, "document.querySelectorAll('#score a')[1].hasAttribute('aria-current')")
    head = float((page.locator("#score .head").get_attribute("d") or "").removeprefix("M").split()[0])
    assert head == pytest.approx(2.4 + time - 1.2, abs=0.1)


@pytest.mark.parametrize("how", ["curve", "keys", "list"])
def test_a_highlight_is_played_in_the_whole_video(how: str, visit: OpenPage, summarized_job: Job) -> None:
    page = visit(f"/jobs/{summarized_job.id}")
    if how == "curve":
        page.locator("#score a").nth(1).click()
    elif how == "keys":
        page.locator("#score a").nth(1).focus()
        page.keyboard.press("Enter")
    else:
        page.get_by_text("List of the highlights").click()
        page.locator("#summary tbody a").nth(1).click()
    wait_for_condition(page, "!document.getElementById('whole-film').paused")
    wait_for_condition(page, "document.getElementById('whole-film').paused")
    wait_for_frame(page, "whole-film", 74)
    assert page.evaluate("document.getElementById('summary-film').paused")


def test_any_moment_of_the_curve(visit: OpenPage, summarized_job: Job) -> None:
    page = visit(f"/jobs/{summarized_job.id}")
    box = page.locator("#score svg").bounding_box()
    assert box is not None
    page.locator("#score svg").click(position={"x": box["width"] * 0.5, "y": box["height"] - 3})
    wait_for_condition(page, "document.getElementById('whole-film').currentTime > 2")
    page.evaluate("document.getElementById('whole-film').pause()")
    assert page.evaluate("document.getElementById('whole-film').currentTime") < 3.5
