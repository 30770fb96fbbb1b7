"""A job with its video: the strip, the time line, and the player at the very frame."""

from __future__ import annotations

import re
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import expect
from sqlalchemy import Engine

from shared.storage import ContentStorage
from shared.values import Job
from tests.api.conftest import make_video_file
from tests.browser.conftest import (
    GREY_VIDEO,
    OpenPage,
    count_colours,
    create_finished_job,
    fits_width,
    wait_for_condition,
    wait_for_frame,
)

pytestmark = pytest.mark.browser


@pytest.mark.parametrize(("width", "height", "scheme"), [(1200, 900, "light"), (375, 800, "dark")])
def test_what_a_job_looks_like(
    width: int, height: int, scheme: str, visit: OpenPage, finished_job: Job, tmp_path: Path
) -> None:
    page = visit(f"/jobs/{finished_job.id}", width, height, scheme)
    wait_for_condition(page, "player.readyState >= 2 && document.querySelectorAll('#strip img')[0].naturalWidth > 0")
    page.locator("#strip a").nth(1).click()
    wait_for_condition(page, "player.currentTime > 5")
    page.evaluate("player.pause()")
    picture = Image.open(BytesIO(page.screenshot(path=tmp_path / "job.png"))).convert("RGB")
    assert picture.size == (width, height)
    ground = picture.getpixel((2, height // 2))
    assert ground == {"light": (244, 245, 242), "dark": (17, 19, 20)}[scheme]
    assert count_colours(page, "#strip") > 300
    assert count_colours(page, "#player") > 1000
    assert count_colours(page, "#line") >= 4
    assert fits_width(page)
    for selector in ("h1", ".badge", "#player", "#line", "#strip"):
        expect(page.locator(selector).first).to_be_in_viewport(ratio=0.5)
    assert page.locator("#strip a").first.bounding_box()["width"] >= 120  # type: ignore[index]


def test_the_arrow_keys_go_from_shot_to_shot(visit: OpenPage, finished_job: Job) -> None:
    page = visit(f"/jobs/{finished_job.id}")
    wait_for_condition(page, "player.readyState >= 2")
    page.locator("#line").focus()

    def press(key: str, shot: int) -> None:
        page.keyboard.press(key)
        wait_for_condition(page, f"!player.seeking && Math.abs(player.currentTime - {5 * shot}) < 0.01")
        expect(page.locator("#strip a[aria-current]")).to_have_attribute("data-at", str(shot))
        expect(page.locator("#line")).to_have_attribute("aria-valuenow", str(shot + 1))

    for key, shot in (("ArrowRight", 1), ("ArrowRight", 2), ("ArrowLeft", 1), ("End", 11), ("ArrowRight", 11)):
        press(key, shot)
    press("Home", 0)
    page.locator("#strip a[aria-current]").focus()
    press("ArrowRight", 1)
    assert page.evaluate("document.activeElement.dataset.at") == "1"
    assert page.evaluate("player.paused")


def test_a_click_on_the_time_line(visit: OpenPage, finished_job: Job) -> None:
    page = visit(f"/jobs/{finished_job.id}")
    wait_for_condition(page, "player.readyState >= 2")
    box = page.locator("#line").bounding_box()
    assert box is not None
    page.locator("#line").click(position={"x": box["width"] * 0.76, "y": 5})  # 45.6 s of 60: the shot from 45 s
    expect(page.locator("#strip a[aria-current]")).to_have_attribute("data-at", "9")
    wait_for_condition(page, "player.currentTime > 45 && player.currentTime < 50")
    expect(page.locator("#strip a[aria-current]")).to_be_in_viewport()


@pytest.mark.parametrize("options", [[], ["-use_editlist", "0"], ["-output_ts_offset", "5"]])
def test_the_player_shows_the_first_frame_of_the_shot(
    options: list[str], visit: OpenPage, database: Engine, files: ContentStorage, tmp_path: Path
) -> None:
    """Also in videos that do not start at 0: what is on the screen is the frame that the result names."""
    video_path = make_video_file(
        tmp_path / "grey.mp4", *GREY_VIDEO, "-c:v", "libx264", "-bf", "2", "-qp", "4", *options
    )
    cuts = [0, 1, 37, 38, 80]
    page = visit(f"/jobs/{create_finished_job(database, files, tmp_path, video_path, cuts).id}")
    page.locator("#line").focus()
    for cut in cuts[1:]:
        page.keyboard.press("ArrowRight")
        wait_for_frame(page, "player", cut)


@pytest.mark.parametrize(
    "codec", [["-c:v", "mpeg4"], ["-c:v", "libx265", "-tag:v", "hvc1", "-x265-params", "log-level=error"]]
)
def test_a_video_that_the_browser_cannot_play(
    codec: list[str], visit: OpenPage, database: Engine, files: ContentStorage, tmp_path: Path
) -> None:
    """It says so, and the keyframes can still be looked at. With sound, since a player would play that alone."""
    sound = ["-f", "lavfi", "-i", "sine=440:duration=4", "-c:a", "aac", "-shortest"]
    video_path = make_video_file(tmp_path / "film.mp4", *GREY_VIDEO, *sound, *codec)
    page = visit(f"/jobs/{create_finished_job(database, files, tmp_path, video_path, [0, 25, 60]).id}")
    expect(page.locator("#stills .error")).to_contain_text("This browser cannot play")
    page.locator("#strip a").nth(2).click()
    expect(page.locator("#stills img")).to_have_count(3)
    expect(page.locator("#stills img").nth(2)).to_have_attribute("src", re.compile(r"/shot_0002_img_2\.jpg$"))
    wait_for_condition(page, "document.querySelectorAll('#stills img')[2].naturalWidth > 0")


def test_thousands_of_shots(visit: OpenPage, database: Engine, files: ContentStorage, tmp_path: Path) -> None:
    """They come in pages, their images when they are looked at, and the page stays quick."""
    video_path = make_video_file(tmp_path / "long.mp4", "-f", "lavfi", "-i", "testsrc=size=64x64:rate=25:duration=120")
    page = visit(f"/jobs/{create_finished_job(database, files, tmp_path, video_path, list(range(3000))).id}")
    expect(page.locator("#total")).to_have_text("3000")
    expect(page.locator("#more")).to_have_count(0)
    loaded = "[...document.querySelectorAll('#strip img')].filter((one) => one.naturalWidth).length"
    assert 0 < page.evaluate(loaded) < 100
    page.locator("#line").focus()
    page.keyboard.press("End")
    expect(page.locator("#strip a").nth(2999)).to_be_in_viewport()
    wait_for_condition(page, "document.querySelectorAll('#strip img')[2999].naturalWidth > 0")
    assert page.evaluate(loaded) < 300
    slowest = page.evaluate(
        "() => { let worst = 0; for (let i = 0; i < 20; i++) { const t = performance.now();"
        " document.dispatchEvent(new Event('x')); document.getElementById('strip').scrollTo({ left: i * 20000 });"
        " document.body.offsetHeight; worst = Math.max(worst, performance.now() - t); } return worst; }"
    )
    assert slowest < 250
