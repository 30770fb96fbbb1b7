"""Debian's Chromium in front of a real API, and real films in its ledger and store."""

from __future__ import annotations

import os
import time
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

from shared.files import Files
from shared.store import runs, videos
from shared.store.plan import Analysis
from shared.values import Artifact, Job, Progress, Shot, Stage, new_id
from tests import factories
from tests.api.conftest import GREY, Served, served
from worker.video.probe import probe
from worker.video.reader import Reader

__all__ = ["GREY", "served"]

CHROMIUM = Path("/usr/bin/chromium")
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--no-first-run", "--mute-audio",
]  # fmt: skip
PATIENCE_MS = 60_000
CLIP: Path = sample_videos("mp4")[0]
"""A real clip with sound: 1,441 frames, 24 a second."""
Visit = Callable[..., Page]


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Debian's Chromium. Without it these tests skip, unless SCENEWORKS_REQUIRE_BROWSER says that they must not."""
    if not CHROMIUM.exists():
        assert not os.environ.get("SCENEWORKS_REQUIRE_BROWSER"), f"{CHROMIUM} is missing"
        pytest.skip(f"{CHROMIUM} is missing: apt-get install chromium")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=str(CHROMIUM), args=ARGUMENTS)
        yield started
        started.close()


@dataclass
class Watched:
    """What must not happen on any page."""

    home: str
    refused: set[int] = field(default_factory=set)
    """Statuses that a test provokes."""
    faults: list[str] = field(default_factory=list)

    def console(self, message: ConsoleMessage) -> None:
        provoked = any(f"responded with a status of {status}" in message.text for status in self.refused)
        if message.type in {"error", "warning"} and not provoked:
            self.faults.append(f"console: {message.text}")

    def request(self, request: Request) -> None:
        if not request.url.startswith((f"{self.home}/", "data:image/svg+xml,")):
            self.faults.append(f"a request left for {request.url}")


@pytest.fixture
def visit(browser: Browser, served: Served) -> Iterator[Visit]:
    """Opens a place of the site; the test fails on an error in the console or a request that leaves this machine."""
    watched, contexts = Watched(served.url), []

    def open_page(
        place: str = "/", width: int = 1200, height: int = 900, scheme: str = "light", refused: Collection[int] = ()
    ) -> Page:
        watched.refused |= set(refused)
        context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.on("console", watched.console)
        page.on("pageerror", lambda error: watched.faults.append(str(error)))
        page.on("request", watched.request)
        page.goto(served.url + place)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not watched.faults


@pytest.fixture(scope="module")
def database(served: Served) -> Engine:
    """The ledger of the API in front of which the browser sits."""
    return served.database


@pytest.fixture(scope="module")
def files(served: Served) -> Files:
    """Its store."""
    return Files(served.data_dir)


@pytest.fixture(scope="module")
def shown(database: Engine, files: Files, tmp_path_factory: pytest.TempPathFactory) -> Job:
    """The clip with twelve shots of 120 frames."""
    return finished(database, files, tmp_path_factory.mktemp("shown"), CLIP, list(range(0, 1440, 120)))


def drawn(shot: int, image: int) -> bytes:
    """A keyframe in the colour of its shot."""
    picture = Image.new("RGB", (160, 90), ((shot * 67) % 256, (shot * 131) % 256, (shot * 29 + 90 * image) % 256))
    ImageDraw.Draw(picture).text((8, 8), f"{shot}.{image}", fill="white")
    out = BytesIO()
    picture.save(out, "JPEG", quality=80)
    return out.getvalue()


def submitted(database: Engine, files: Files, film: Path, *models: str | Analysis) -> Job:
    """A job on a real film, in the ledger."""
    asked = tuple(factories.analysis(one) if isinstance(one, str) else one for one in models or ("shots",))
    return factories.job(database, entered(database, files, film), analyses=asked)


def entered(database: Engine, files: Files, film: Path) -> str:
    """A real film, in the ledger and in the store; its id."""
    stored = files.put(film)
    video, _ = videos.add(
        database, sha256=stored.sha256, size=stored.size, name=film.name, media_type="video/mp4", video=probe(film)
    )
    return video.id


def finished(database: Engine, files: Files, folder: Path, film: Path, cuts: list[int]) -> Job:
    """A job on a real film whose run has found shots that begin at those frames."""
    job = submitted(database, files, film)
    finish(database, files, folder, film, job, cuts)
    return job


def finish(database: Engine, files: Files, folder: Path, film: Path, job: Job, cuts: list[int]) -> None:
    claim = factories.claim(database, job.runs[0].id)
    assert claim is not None
    archive = folder / "keyframes.zip"
    with zipfile.ZipFile(archive, "w") as opened:
        for shot, image in product(range(len(cuts)), range(3)):
            opened.writestr(f"shot_{shot:04d}_img_{image}.jpg", drawn(shot, image))
    kept = files.put(archive)
    with Reader(film) as reader:
        frames = sum(1 for _ in reader.frames())
        ranges = [reader.timeline.range(*bound) for bound in zip(cuts, [*cuts[1:], frames], strict=True)]
    runs.finish(
        database, claim, progress=Progress((Stage("encode", "done", frames, frames, "frame", 1.0),), 1.0),
        decode_failures=0, results=[Shot(one).result(seq) for seq, one in enumerate(ranges)],
        artifacts=[Artifact(new_id("art"), "keyframes", archive.name, "application/zip", kept.sha256, kept.size)],
    )  # fmt: skip


def colours(page: Page, selector: str) -> int:
    """Colours in the picture of an element."""
    picture = Image.open(BytesIO(page.locator(selector).screenshot())).convert("RGB")
    return len(picture.getcolors(picture.width * picture.height) or [])


def fits(page: Page) -> bool:
    """Whether nothing sticks out sideways."""
    return bool(page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"))


def wait_for(page: Page, condition: str) -> None:
    """Not by the browser's own waiting, which evaluates text inside the page: our policy forbids that."""
    deadline = time.monotonic() + PATIENCE_MS / 1000
    while not page.evaluate(condition):
        assert time.monotonic() < deadline, condition
        page.wait_for_timeout(50)
