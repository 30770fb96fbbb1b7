"""The scenes of a video: bands, the curve, a threshold that groups anew, and a scene that is played to its end."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
from playwright.sync_api import Page, expect
from sqlalchemy import Engine

from shared.storage import ContentStorage
from shared.store import results
from shared.values import Job, TimeRange
from tests.api.conftest import finish_scenes, make_video_file
from tests.browser.conftest import (
    GREY_VIDEO,
    SAMPLE_CLIP,
    OpenPage,
    count_colours,
    create_job,
    finish_shots_run,
    fits_width,
    wait,
    wait_for_condition,
    wait_for_frame,
)

pytestmark = pytest.mark.browser

PROBABILITIES = (0.05, 0.9, 0.2, 0.62, 0.1, 0.97, 0.3, 0.8, 0.15, 0.85, 0.4, 0.7)
"""Of twelve shots of 120 frames. At 0.8 four scenes: shots 1-2, 3-6, 7-10, 11-12; at 0.79, five."""


def ranges(database: Engine, job: Job) -> list[TimeRange]:
    """Of its shots."""
    found = results.list_results(database, job.id, kind="shot", limit=10_000)
    return [one.result.range for one in found if one.result.range]


def create_scenes_job(
    database: Engine,
    files: ContentStorage,
    folder: Path,
    video_path: Path,
    cuts: list[int],
    scores: dict[str, list[float]],
) -> Job:
    """A job on a real video whose shots begin at those frames, with what models said about their ends."""
    job = create_job(database, files, video_path, *scores)
    finish_shots_run(database, files, folder, video_path, job, cuts)
    for model, probabilities in scores.items():
        finish_scenes(database, job, model, ranges(database, job), probabilities)
    return job


@pytest.fixture(scope="module")
def told(database: Engine, files: ContentStorage, tmp_path_factory: pytest.TempPathFactory) -> Job:
    """The clip with twelve shots and the scenes of both models."""
    scores = {"bassl": list(PROBABILITIES), "scrl": [1 - one for one in PROBABILITIES]}
    return create_scenes_job(
        database, files, tmp_path_factory.mktemp("told"), SAMPLE_CLIP, list(range(0, 1440, 120)), scores
    )  # fmt: skip


def drag(page: Page, threshold: float) -> None:
    """Move the slider as a hand does: when it is there, and by its own event."""
    expect(page.locator("#threshold")).to_be_visible()
    page.locator("#threshold").evaluate(
        "(slider, to) => { slider.value = to; slider.dispatchEvent(new Event('input', { bubbles: true })); }", threshold
    )


def bands(page: Page) -> list[str]:
    return [band.get_attribute("aria-label") or "" for band in page.locator("#bands button").all()]


@pytest.mark.parametrize(("width", "height", "scheme"), [(1200, 900, "light"), (375, 800, "dark")])
def test_what_scenes_look_like(
    width: int, height: int, scheme: str, visit: OpenPage, told: Job, tmp_path: Path
) -> None:
    page = visit(f"/jobs/{told.id}", width, height, scheme)
    expect(page.locator("#scenes-title")).to_have_text("4 scenes")
    wait_for_condition(page, "player.readyState >= 2 && document.querySelectorAll('#strip img')[0].naturalWidth > 0")
    expect(page.locator("#bands button")).to_have_count(4)
    assert bands(page)[1] == "Scene 2, from 00:00:10:00, 20.0 s, shots 3 to 6"
    for selector in ("#graph", "#bands", "#line", "#threshold"):
        expect(page.locator(selector)).to_be_visible()
    page.locator("#strip").scroll_into_view_if_needed()
    wait_for_condition(page, "document.querySelectorAll('#strip img')[1].naturalWidth > 0")
    wait(
        page,
        "the pictures are drawn",
        lambda: count_colours(page, "#graph") > 20 and count_colours(page, "#strip") > 100,
    )
    page.screenshot(path=tmp_path / "scenes.png")
    assert fits_width(page)
    seen = page.locator("#bands button").evaluate_all(
        "(all) => all.map((one) => getComputedStyle(one).backgroundColor)"
    )
    assert len(set(seen)) == 4
    over = "(one) => getComputedStyle(one, '::before').backgroundColor"
    assert [page.locator("#strip li").nth(shot).evaluate(over) for shot in (0, 1, 2, 5, 6)] == [
        seen[0], seen[0], seen[1], seen[1], seen[2],
    ]  # fmt: skip
    assert page.locator("#strip li").nth(2).get_attribute("data-scene") == "Scene 2"


def test_bands_lie_over_their_shots(visit: OpenPage, told: Job) -> None:
    """Band, curve and time line have one scale: where a scene begins, its first shot begins."""
    page = visit(f"/jobs/{told.id}")
    expect(page.locator("#bands button")).to_have_count(4)
    whole = page.locator("#line").bounding_box()
    assert whole is not None
    for band, start, end in ((0, 0, 10), (1, 10, 30), (2, 30, 50), (3, 50, 60.04)):
        box = page.locator("#bands button").nth(band).bounding_box()
        assert box is not None
        duration = float(page.locator("#film").get_attribute("data-duration") or "")
        assert abs(box["x"] - whole["x"] - start / duration * whole["width"]) < 1.5
        assert abs(box["width"] - (end - start) / duration * whole["width"]) < 1.5
    points = page.locator("#graph .curve").get_attribute("d") or ""
    heights = [float(point.split()[1]) for point in points.removeprefix("M").split("L")]
    assert heights == pytest.approx([10 * (1 - one) for one in PROBABILITIES], abs=1e-3)
    assert (page.locator("#graph .bound").get_attribute("d") or "").startswith("M0 2.0000H")


def test_the_slider_groups_at_once(visit: OpenPage, told: Job) -> None:
    """By the rule of the service: strictly above, as float32. 0.8 is no boundary at 0.8."""
    page = visit(f"/jobs/{told.id}")
    title = page.locator("#scenes-title")
    expect(title).to_have_text("4 scenes")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    for threshold, scenes in ((0.79, 5), (0.8, 4), (0.6, 6), (0.97, 1), (0.96, 2), (0, 12), (1, 1)):
        drag(page, threshold)
        expect(title).to_have_text(f"{scenes} scene{'s' if scenes > 1 else ''}")
        expect(page.locator("#bands button")).to_have_count(scenes)
        expect(page.locator("#strip li.opens")).to_have_count(scenes)
        expect(page.locator("#choose output")).to_have_text(str(threshold))
    assert not [url for url in asked if "/v1/jobs" in url]
    drag(page, 0.6)
    page.get_by_text("List of the scenes").click()
    expect(page.locator("#scene-list tbody tr")).to_have_count(6)
    shots = [row.locator("td").nth(2).inner_text() for row in page.locator("#scene-list tbody tr").all()]
    assert shots == ["1 to 2", "3 to 4", "5 to 6", "7 to 8", "9 to 10", "11 to 12"]
    published = page.evaluate("fetch(document.getElementById('published').href).then((answer) => answer.json())")
    assert [scene["shot"] for scene in published["scene_meta_list"]] == [
        [f"{first:04d}", f"{first + 1:04d}"] for first in range(0, 12, 2)
    ]
    page.get_by_role("button", name="Back to 0.8").click()
    expect(title).to_have_text("4 scenes")


def test_the_keyboard_alone(visit: OpenPage, told: Job) -> None:
    page = visit(f"/jobs/{told.id}")
    expect(page.locator("#bands button")).to_have_count(4)
    page.locator("#threshold").focus()
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#scenes-title")).to_have_text("5 scenes")
    page.keyboard.press("Tab")  # to the way back
    page.keyboard.press("Tab")  # to the bands
    for key, at in (("ArrowRight", "1"), ("End", "4"), ("ArrowLeft", "3"), ("Home", "0"), ("ArrowRight", "1")):
        page.keyboard.press(key)
        assert page.evaluate("document.activeElement.dataset.at") == at
    page.keyboard.press("Enter")
    wait_for_condition(page, "player.currentTime > 10 && !player.paused")
    assert page.locator("#strip a[aria-current]").get_attribute("data-at") == "2"


@pytest.mark.parametrize("where", ["band", "strip", "list"])
def test_a_scene_is_played_to_its_end(
    where: str, visit: OpenPage, database: Engine, files: ContentStorage, tmp_path: Path
) -> None:
    """From its first frame; the video then stands on its last frame, not on the first of the next one."""
    video_path = make_video_file(
        tmp_path / "grey.mp4", *GREY_VIDEO, "-c:v", "libx264", "-bf", "2", "-qp", "4", "-metadata", f"title={where}"
    )
    scores = {"scrl": [0.1, 0.9, 0.2, 0.8, 0.0]}
    page = visit(f"/jobs/{create_scenes_job(database, files, tmp_path, video_path, [0, 20, 30, 42, 60], scores).id}")
    expect(page.locator("#bands button")).to_have_count(3)
    wait_for_condition(page, "player.readyState >= 2")
    page.evaluate("times = []; player.addEventListener('seeking', () => times.push(player.currentTime))")
    if where == "band":
        page.locator("#bands button").nth(1).click()
    elif where == "strip":
        page.locator("#strip li").nth(2).click(position={"x": 60, "y": 8})
    else:
        page.get_by_text("List of the scenes").click()
        page.locator("#scene-list tbody a").nth(1).click()
    wait_for_condition(page, "!player.paused")
    wait_for_condition(page, "player.paused && !player.seeking && times.length > 1")
    assert page.evaluate("times[0]") == pytest.approx(30 / 25, abs=0.01)
    assert page.evaluate("player.currentTime") == pytest.approx(60 / 25, abs=0.03)
    wait_for_frame(page, "player", 59)
    expect(page.locator("#strip a[aria-current]")).to_have_attribute("data-at", "3")
    expect(page.locator("#bands button[aria-current]")).to_have_attribute("data-at", "1")
    page.evaluate("void player.play()")  # whoever plays on is not held back
    wait_for_condition(page, "player.currentTime > 2.6")


def test_two_models_and_a_switch(visit: OpenPage, told: Job) -> None:
    """Each keeps its own threshold."""
    page = visit(f"/jobs/{told.id}")
    expect(page.locator("#scenes-title")).to_have_text("4 scenes")
    drag(page, 0.6)
    switches = page.locator(".switch")
    expect(switches).to_have_count(2)
    switches.nth(1).click()
    above = sum(1 - one > 0.5 for one in PROBABILITIES)
    expect(page.locator("#scenes-title")).to_have_text(f"{above + 1} scenes")
    expect(page.locator("#choose output")).to_have_text("0.5")
    listed = page.evaluate("fetch(document.querySelector('#exports a').href).then((answer) => answer.text())")
    assert len([line for line in listed.splitlines() if line[:3].isdigit()]) == above + 1
    expect(switches.nth(1)).to_have_attribute("aria-current", "true")
    switches.nth(0).click()
    expect(page.locator("#scenes-title")).to_have_text("6 scenes")
    expect(page.locator("#choose output")).to_have_text("0.6")


def test_scenes_come_while_the_video_is_watched(
    visit: OpenPage, database: Engine, files: ContentStorage, tmp_path: Path
) -> None:
    """They appear without a reload, and the player that is at work stays."""
    video_path = make_video_file(tmp_path / "grey.mp4", *GREY_VIDEO, "-c:v", "libx264", "-g", "5")
    job = create_job(database, files, video_path, "bassl", "scrl")
    finish_shots_run(database, files, tmp_path, video_path, job, [0, 30, 60])
    page = visit(f"/jobs/{job.id}")
    wait_for_condition(page, "player.readyState >= 2")
    page.evaluate("player.currentTime = 2; same = player; void 0")
    finish_scenes(database, job, "bassl", ranges(database, job), [0.9, 0.1, 0.2])
    expect(page.locator("#scenes-title")).to_have_text("2 scenes")
    expect(page.locator("#bands button")).to_have_count(2)
    finish_scenes(database, job, "scrl", ranges(database, job), [0.6, 0.7, 0.2])
    expect(page.locator("#film .switch")).to_have_count(2)
    expect(page.locator("#bands")).to_have_count(1)
    page.locator(".switch").nth(1).click()
    expect(page.locator("#strip li.opens")).to_have_count(3)
    assert page.evaluate("same === player && player.currentTime === 2")
    page.locator("#strip li").nth(1).click(position={"x": 60, "y": 8})  # of these scenes, not of those before
    wait_for_condition(page, "player.paused && player.currentTime > 2.35 && player.currentTime < 2.41")
    expect(page.locator("#job .badge")).to_have_text("succeeded")


def test_thousands_of_shots_regroup(visit: OpenPage, database: Engine, files: ContentStorage, tmp_path: Path) -> None:
    video_path = make_video_file(tmp_path / "long.mp4", "-f", "lavfi", "-i", "testsrc=size=64x64:rate=25:duration=120")
    chance = Random(7)
    scores = {"bassl": [chance.random() for _ in range(3000)]}
    job = create_scenes_job(database, files, tmp_path, video_path, list(range(3000)), scores)
    page = visit(f"/jobs/{job.id}")
    expect(page.locator("#total")).to_have_text("3000")
    expect(page.locator("#strip li[class]")).to_have_count(3000)
    page.evaluate(
        "async () => { const slider = document.getElementById('threshold');"
        " for (const value of [0.9, 0.5, 0.1, 0.3, 0.7]) { slider.value = value;"
        " slider.dispatchEvent(new Event('input', { bubbles: true })); await new Promise(requestAnimationFrame); } }"
    )
    exact = sum(one > 0.7 for one in scores["bassl"][:-1]) + 1
    expect(page.locator("#scenes-title")).to_have_text(f"{exact} scenes")
    expect(page.locator("#strip li.opens")).to_have_count(exact)
