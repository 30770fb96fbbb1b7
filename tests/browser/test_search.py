"""Search by example: a grid of keyframes, most similar first; a click plays what a image stands for."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Page, expect
from sqlalchemy import Engine

from shared.storage import ContentStorage
from shared.store.jobs import jobs
from tests.api.conftest import make_video_file
from tests.browser.conftest import OpenPage, add_video, fits_width, wait_for_condition
from tests.support import factories

pytestmark = pytest.mark.browser

TICKS = ["-video_track_timescale", "24000"]
"""The clock of `factories.embed`."""
COLOURS = {"red": (254, 0, 0), "lime": (0, 255, 1), "blue": (0, 0, 254)}


@pytest.fixture(scope="module")
def alike(database: Engine, files: ContentStorage, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The job of a red video of three shots of a second; a lime and a blue one of two shots each are there, too."""
    folder, made = tmp_path_factory.mktemp("alike"), {}
    for colour in COLOURS:
        source = ["-f", "lavfi", "-i", f"color={colour}:size=128x72:rate=24:duration=3", "-pix_fmt", "yuv420p"]
        made[colour] = add_video(
            database, files, make_video_file(folder / f"{colour}.mp4", *source, "-c:v", "libx264", *TICKS)
        )
    factories.add_embeddings(database, [[0.0, 1.0, 0.0], [0.6, 0.8, 0.0]], video_id=made["lime"])
    factories.add_embeddings(database, [[0.0, 0.0, 1.0], [0.0, 1.0, 1.0]], video_id=made["blue"])
    run = factories.add_embeddings(database, [[1.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 0.5]], video_id=made["red"])
    return next(job.id for job in jobs.list_jobs(database, limit=10) if run.id in {one.id for one in job.runs})


def captions(page: Page) -> list[str]:
    return [" ".join(text.split()) for text in page.locator("#likeness .cap").all_inner_texts()]


@pytest.mark.parametrize(("width", "height", "scheme"), [(1200, 900, "light"), (375, 800, "dark")])
def test_a_grid_of_pictures(width: int, height: int, scheme: str, visit: OpenPage, alike: str, tmp_path: Path) -> None:
    """Like shot 2, which points along the second axis: cosines 1, 0.8, 1/sqrt(2) and 0."""
    page = visit(f"/jobs/{alike}?shot=1", width, height, scheme)
    expect(page.locator("#likeness .meta")).to_have_text("shots like shot 2")
    assert captions(page) == [
        "lime.mp4 00:00:00:00 1.000", "lime.mp4 00:00:01:00 0.800", "blue.mp4 00:00:01:00 0.707",
        "blue.mp4 00:00:00:00 0.000",
    ]  # fmt: skip
    page.locator("#likeness").scroll_into_view_if_needed()
    images = "[...document.querySelectorAll('#likeness img')]"
    wait_for_condition(page, f"{images}.every((one) => one.naturalWidth > 0)")
    page.screenshot(path=tmp_path / "likeness.png", full_page=True)
    seen = page.evaluate(
        f"{images}.map((one) => {{ const c = document.createElement('canvas').getContext('2d');"
        " c.drawImage(one, 0, 0); return [...c.getImageData(40, 40, 1, 1).data].slice(0, 3); })"
    )
    for found, name in zip(seen, ("lime", "lime", "blue", "blue"), strict=True):
        assert max(abs(a - b) for a, b in zip(found, COLOURS[name], strict=True)) < 12
    assert fits_width(page)


def test_a_click_plays_the_shot(visit: OpenPage, alike: str) -> None:
    page = visit(f"/jobs/{alike}?shot=1")
    page.locator("#likeness .grid a").nth(1).click()
    expect(page.locator("#like-screen figcaption")).to_have_text("lime.mp4, shot 2 from 00:00:01:00")
    player = "document.getElementById('like-film')"
    wait_for_condition(page, f"{player}.currentTime > 1.2 && !{player}.paused")
    wait_for_condition(page, f"{player}.paused")  # where the shot ends
    assert page.evaluate(f"{player}.currentTime") == pytest.approx(2, abs=0.05)
    page.locator("#likeness .grid a").nth(2).press("Enter")
    expect(page.locator("#like-screen figcaption")).to_have_text("blue.mp4, shot 2 from 00:00:01:00")
    wait_for_condition(page, f"{player}.videoWidth === 128 && {player}.currentTime > 1")


def test_another_shot_is_asked_with(visit: OpenPage, alike: str) -> None:
    page = visit(f"/jobs/{alike}")
    expect(page.locator("#likeness .meta")).to_have_text("shots like this video")
    page.get_by_label("Like", exact=True).select_option("shot 3")
    page.get_by_role("button", name="Show").click()
    expect(page.locator("#likeness .meta")).to_have_text("shots like shot 3")
    assert captions(page)[0] == "blue.mp4 00:00:00:00 1.000"
    assert page.url.endswith("#likeness")
