"""Values and rows for tests, made the way the product makes them."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from fractions import Fraction
from typing import Any
from uuid import uuid4

from sqlalchemy import Engine

from shared.catalog import MENU
from shared.store import jobs, runs, videos, workers
from shared.store.jobs import NewJob
from shared.store.plan import Analysis
from shared.store.runs import Claim
from shared.values import (
    Artifact,
    AudioStream,
    Clock,
    Embedding,
    Job,
    Progress,
    Result,
    Run,
    Shot,
    StoredVideo,
    Timeline,
    Video,
)

NTSC_FILM = Fraction(24000, 1001)


def clock(fps: Fraction = NTSC_FILM, time_base: Fraction = Fraction(1, 24000), start_pts: int = 0) -> Clock:
    """A time axis of evenly spaced frames."""
    return Clock(time_base=time_base, fps=fps, start_pts=start_pts)


def timeline(frames: int, on: Clock | None = None) -> Timeline:
    """Evenly spaced frames on a clock."""
    on = on or clock()
    step = int(1 / (on.fps * on.time_base))
    pts = array("q", (on.start_pts + step * frame for frame in range(frames)))
    return Timeline(on, pts, on.start_pts + step * frames)


def video(**changed: Any) -> Video:
    """Facts of a film of 240 frames at 24000/1001."""
    facts: dict[str, Any] = {
        "container": "mov",
        "codec": "h264",
        "pixel_format": "yuv420p",
        "bit_depth": 8,
        "coded_width": 1280,
        "coded_height": 720,
        "width": 1280,
        "height": 720,
        "rotation": 0,
        "sample_aspect_ratio": Fraction(1),
        "clock": clock(),
        "start_time": Fraction(0),
        "container_start_time": Fraction(0),
        "duration": Fraction(240 * 1001, 24000),
        "frames": 240,
        "transfer": "bt709",
        "audio": (AudioStream("aac", 2, 48_000, "eng"),),
    }
    return Video(**facts | changed)


def stored(engine: Engine, sha256: str | None = None) -> StoredVideo:
    """A video in the ledger (its bytes are nowhere)."""
    found, _ = videos.add(
        engine,
        sha256=sha256 or uuid4().hex * 2,
        size=1000,
        name="film.mp4",
        media_type="video/mp4",
        video=video(),
    )
    return found


def analysis(model: str = "shots", **params: Any) -> Analysis:
    """One model asked for."""
    return Analysis(model, MENU[model].params(**params))


def job(engine: Engine, video_id: str | None = None, **request: Any) -> Job:
    """A job for `shots` in the ledger."""
    video_id = video_id or stored(engine).id
    request = {"analyses": (analysis(),)} | request
    return jobs.create(engine, NewJob(video_id=video_id, **request)).job


def claim(engine: Engine, run_id: str, owner: str = "worker-1", lease_s: float = 30) -> Claim | None:
    """What a worker does first."""
    return runs.claim(engine, run_id, owner=owner, device="cpu", precision="fp32", version="test", lease_s=lease_s)


def embed(
    engine: Engine,
    vectors: Sequence[Sequence[float]],
    *,
    per: str = "shot",
    weights: str = "a" * 64,
    video_id: str | None = None,
    keyframes: Sequence[Artifact] = (),
    seconds: int = 1,
    clips: int = 10,
    **request: Any,
) -> Run:
    """The finished run of `r2plus1d` that yields these vectors; each shot has so many seconds of 24 frames."""
    serves = [{"model": "r2plus1d", "weights": weights, "error": None}]
    workers.announce(engine, "w", state="ready", reason=None, models=serves, device="cpu", precision="fp32")
    made = job(engine, video_id, analyses=(analysis("r2plus1d", per=per, clips=clips),), **request)
    step = 24 * seconds
    line = timeline(step * len(vectors), clock(Fraction(24)))
    spans = [line.range(at * step, (at + 1) * step) if per == "shot" else None for at in range(len(vectors))]
    found = [Embedding(seq, span, array("f", vectors[seq])) for seq, span in enumerate(spans)]
    for run in made.runs:
        embeds = run.model == "r2plus1d"
        if (claimed := claim(engine, run.id)) is not None:
            runs.finish(
                engine,
                claimed,
                progress=Progress((), 1.0),
                weights=weights if embeds else None,
                decode_failures=0,
                results=[Result("embedding", one.seq, one.range) for one in found] if embeds else [],
                artifacts=[] if embeds else keyframes,
                embeddings=found if embeds else [],
            )
    return jobs.get(engine, made.id).runs[-1]


def shots(*bounds: tuple[int, int]) -> list[Result]:
    """Shots as rows."""
    line = timeline(max(end for _, end in bounds))
    return [Shot(line.range(*bound)).result(seq) for seq, bound in enumerate(bounds)]
