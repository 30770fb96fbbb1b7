"""Debian's Chromium in front of a real API, and real videos in its ledger and store."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from io import BytesIO
from itertools import product
from pathlib import Path

import pytest
from iscc_samples import videos as sample_videos
from PIL import Image, ImageDraw
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, sync_playwright
from sqlalchemy import Engine

from shared.storage import ContentStorage
from shared.store.jobs.planner import Analysis
from shared.store.runs import runs
from shared.store.videos import videos
from shared.values import Artifact, Job, Progress, Shot, Stage, new_id
from tests.api.conftest import GREY_VIDEO, ApiServer, api_server
from tests.support import factories
from tests.support.waiting import wait_until
from worker.video.probe import probe_video
from worker.video.reader import VideoReader

__all__ = ["GREY_VIDEO", "api_server"]

CHROMIUM = Path("/usr/bin/chromium")
CHROMIUM_ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--no-first-run", "--mute-audio",
]  # fmt: skip
TIMEOUT_MS = 60_000
SAMPLE_CLIP: Path = sample_videos("mp4")[0]
"""A real clip with sound: 1,441 frames, 24 a second."""
OpenPage = Callable[..., Page]


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Debian's Chromium. Without it these tests skip, unless SCENEWORKS_REQUIRE_BROWSER says that they must not."""
    if not CHROMIUM.exists():
        assert not os.environ.get("SCENEWORKS_REQUIRE_BROWSER"), f"{CHROMIUM} is missing"
        pytest.skip(f"{CHROMIUM} is missing: apt-get install chromium")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=str(CHROMIUM), args=CHROMIUM_ARGUMENTS)
        yield started
        started.close()


@dataclass
class PageWatcher:
    """What must not happen on any page."""

    home: str
    expected_statuses: set[int] = field(default_factory=set)
    """Statuses that a test provokes."""
    faults: list[str] = field(default_factory=list)

    def check_console(self, message: ConsoleMessage) -> None:
        provoked = any(f"responded with a status of {status}" in message.text for status in self.expected_statuses)
        if message.type in {"error", "warning"} and not provoked:
            self.faults.append(f"console: {message.text}")

    def check_request(self, request: Request) -> None:
        if not request.url.startswith((f"{self.home}/", "data:image/svg+xml,")):
            self.faults.append(f"a request left for {request.url}")


@pytest.fixture
def visit(browser: Browser, api_server: ApiServer) -> Iterator[OpenPage]:
    """Opens a place of the site; the test fails on an error in the console or a request that leaves this machine."""
    watcher, contexts = PageWatcher(api_server.url), []

    def open_page(
        path: str = "/",
        width: int = 1200,
        height: int = 900,
        scheme: str = "light",
        expected_statuses: Collection[int] = (),
    ) -> Page:
        watcher.expected_statuses |= set(expected_statuses)
        context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(TIMEOUT_MS)
        page.on("console", watcher.check_console)
        page.on("pageerror", lambda error: watcher.faults.append(str(error)))
        page.on("request", watcher.check_request)
        page.goto(api_server.url + path)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not watcher.faults


@pytest.fixture(scope="module")
def database(api_server: ApiServer) -> Engine:
    """The ledger of the API in front of which the browser sits."""
    return api_server.database


@pytest.fixture(scope="module")
def files(api_server: ApiServer) -> ContentStorage:
    """Its store."""
    return ContentStorage(api_server.data_dir)


@pytest.fixture(scope="module")
def finished_job(database: Engine, files: ContentStorage, tmp_path_factory: pytest.TempPathFactory) -> Job:
    """The clip with twelve shots of 120 frames."""
    return create_finished_job(
        database, files, tmp_path_factory.mktemp("shown"), SAMPLE_CLIP, list(range(0, 1440, 120))
    )


def draw_keyframe(shot: int, image: int) -> bytes:
    """A keyframe in the colour of its shot."""
    image_rgb = Image.new("RGB", (160, 90), ((shot * 67) % 256, (shot * 131) % 256, (shot * 29 + 90 * image) % 256))
    ImageDraw.Draw(image_rgb).text((8, 8), f"{shot}.{image}", fill="white")
    buffer = BytesIO()
    image_rgb.save(buffer, "JPEG", quality=80)
    return buffer.getvalue()


def create_job(database: Engine, files: ContentStorage, path: Path, *models: str | Analysis) -> Job:
    """A job on a real video, in the store."""
    analyses = tuple(
        factories.make_analysis(model) if isinstance(model, str) else model for model in models or ("shots",)
    )
    return factories.create_job(database, add_video(database, files, path), analyses=analyses)


def add_video(database: Engine, files: ContentStorage, path: Path) -> str:
    """A real video, in the store and in the store; its id."""
    stored = files.put_file(path)
    video, _ = videos.add_video(
        database,
        sha256=stored.sha256,
        size=stored.size,
        name=path.name,
        media_type="video/mp4",
        facts=probe_video(path),
    )
    return video.id


def create_finished_job(database: Engine, files: ContentStorage, folder: Path, path: Path, cuts: list[int]) -> Job:
    """A job on a real video whose run has found shots that begin at those frames."""
    job = create_job(database, files, path)
    finish_shots_run(database, files, folder, path, job, cuts)
    return job


def finish_shots_run(
    database: Engine, files: ContentStorage, folder: Path, path: Path, job: Job, cuts: list[int]
) -> None:
    claim = factories.claim_run(database, job.runs[0].id)
    assert claim is not None
    archive = folder / "keyframes.zip"
    with zipfile.ZipFile(archive, "w") as opened:
        for shot, image in product(range(len(cuts)), range(3)):
            opened.writestr(f"shot_{shot:04d}_img_{image}.jpg", draw_keyframe(shot, image))
    stored = files.put_file(archive)
    with VideoReader(path) as reader:
        frames = sum(1 for _ in reader.read_frames())
        ranges = [reader.timeline.time_range(*bound) for bound in zip(cuts, [*cuts[1:], frames], strict=True)]
    runs.finish_run(
        database, claim, progress=Progress((Stage("encode", "done", frames, frames, "frame", 1.0),), 1.0),
        decode_failures=0, results=[Shot(span).to_result(seq) for seq, span in enumerate(ranges)],
        artifacts=[Artifact(new_id("art"), "keyframes", archive.name, "application/zip", stored.sha256, stored.size)],
    )  # fmt: skip


def count_colours(page: Page, selector: str) -> int:
    """Colours in the image of an element."""
    screenshot = Image.open(BytesIO(page.locator(selector).screenshot())).convert("RGB")
    return len(screenshot.getcolors(screenshot.width * screenshot.height) or [])


def read_level(page: Page, player: str) -> int:
    """Number of the frame of `GREY_VIDEO` that a player shows, by its id."""
    grey = page.evaluate(
        "(id) => { const c = document.createElement('canvas').getContext('2d');"
        " c.drawImage(document.getElementById(id), 0, 0); return c.getImageData(32, 32, 1, 1).data[0]; }",
        player,
    )
    return round(grey * 219 / 255 / 2)


def wait_for_frame(page: Page, player: str, frame: int) -> None:
    """Until a player that stands still shows that frame of `GREY_VIDEO`."""
    wait_for_condition(
        page, f"document.getElementById('{player}').paused && !document.getElementById('{player}').seeking"
    )
    wait(page, f"frame {frame} is on the screen", lambda: read_level(page, player) == frame)


def wait(page: Page, what: str, condition: Callable[[], object]) -> None:
    """Until something is true of a page, whose own events go on meanwhile."""
    wait_until(what, condition, pause=lambda seconds: page.wait_for_timeout(1000 * seconds))


def fits_width(page: Page) -> bool:
    """Whether nothing sticks out sideways."""
    return bool(page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"))


def wait_for_condition(page: Page, condition: str) -> None:
    """Not by the browser's own waiting, which evaluates text inside the page: our policy forbids that."""
    wait(page, condition, lambda: page.evaluate(condition))
