"""Values and rows for tests, made the way the product makes them."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from fractions import Fraction
from typing import Any
from uuid import uuid4

from sqlalchemy import Engine

from shared.catalog import CATALOG
from shared.store import workers
from shared.store.jobs import jobs
from shared.store.jobs.jobs import NewJob
from shared.store.jobs.planner import Analysis
from shared.store.runs import runs
from shared.store.runs.runs import Claim
from shared.store.videos import videos
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
    VideoFacts,
)

NTSC_FILM_FPS = Fraction(24000, 1001)


def make_clock(fps: Fraction = NTSC_FILM_FPS, time_base: Fraction = Fraction(1, 24000), start_pts: int = 0) -> Clock:
    """A time axis of evenly spaced frames."""
    return Clock(time_base=time_base, fps=fps, start_pts=start_pts)


def make_timeline(frames: int, on_clock: Clock | None = None) -> Timeline:
    """Evenly spaced frames on a clock."""
    on_clock = on_clock or make_clock()
    step = int(1 / (on_clock.fps * on_clock.time_base))
    pts = array("q", (on_clock.start_pts + step * frame for frame in range(frames)))
    return Timeline(on_clock, pts, on_clock.start_pts + step * frames)


def make_video(**overrides: Any) -> VideoFacts:
    """Facts of a video of 240 frames at 24000/1001."""
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
        "clock": make_clock(),
        "start_time": Fraction(0),
        "container_start_time": Fraction(0),
        "duration": Fraction(240 * 1001, 24000),
        "frames": 240,
        "transfer": "bt709",
        "audio": (AudioStream("aac", 2, 48_000, "eng"),),
    }
    return VideoFacts(**facts | overrides)


def add_video(engine: Engine, sha256: str | None = None) -> StoredVideo:
    """A video in the database (its bytes are nowhere)."""
    stored, _ = videos.add_video(
        engine,
        sha256=sha256 or uuid4().hex * 2,
        size=1000,
        name="film.mp4",
        media_type="video/mp4",
        facts=make_video(),
    )
    return stored


def make_analysis(model: str = "shots", **params: Any) -> Analysis:
    """One model asked for."""
    return Analysis(model, CATALOG[model].params(**params))


def create_job(engine: Engine, video_id: str | None = None, **fields: Any) -> Job:
    """A job for `make_shots` in the database."""
    video_id = video_id or add_video(engine).id
    fields = {"analyses": (make_analysis(),)} | fields
    return jobs.create_job(engine, NewJob(video_id=video_id, **fields)).job


def claim_run(engine: Engine, run_id: str, owner: str = "worker-1", lease_s: float = 30) -> Claim | None:
    """What a worker does first."""
    return runs.claim_run(engine, run_id, owner=owner, device="cpu", precision="fp32", version="test", lease_s=lease_s)


def add_embeddings(
    engine: Engine,
    vectors: Sequence[Sequence[float]],
    *,
    per: str = "shot",
    weights: str = "a" * 64,
    video_id: str | None = None,
    keyframes: Sequence[Artifact] = (),
    seconds: int = 1,
    clips: int = 10,
    **fields: Any,
) -> Run:
    """The finished run of `r2plus1d` that yields these vectors; each shot has so many seconds of 24 frames."""
    serves = [{"model": "r2plus1d", "weights": weights, "error": None}]
    workers.announce_worker(engine, "w", state="ready", reason=None, models=serves, device="cpu", precision="fp32")
    created = create_job(engine, video_id, analyses=(make_analysis("r2plus1d", per=per, clips=clips),), **fields)
    step = 24 * seconds
    timeline = make_timeline(step * len(vectors), make_clock(Fraction(24)))
    spans = [
        timeline.time_range(index * step, (index + 1) * step) if per == "shot" else None
        for index in range(len(vectors))
    ]
    embeddings = [Embedding(seq, span, array("f", vectors[seq])) for seq, span in enumerate(spans)]
    for run in created.runs:
        embeds = run.model == "r2plus1d"
        if (claimed := claim_run(engine, run.id)) is not None:
            runs.finish_run(
                engine,
                claimed,
                progress=Progress((), 1.0),
                weights=weights if embeds else None,
                decode_failures=0,
                results=[Result("embedding", embedding.seq, embedding.range) for embedding in embeddings]
                if embeds
                else [],
                artifacts=[] if embeds else keyframes,
                embeddings=embeddings if embeds else [],
            )
    return jobs.get_job(engine, created.id).runs[-1]


def make_shots(*frame_ranges: tuple[int, int]) -> list[Result]:
    """Shots as rows."""
    timeline = make_timeline(max(end for _, end in frame_ranges))
    return [Shot(timeline.time_range(*bound)).to_result(seq) for seq, bound in enumerate(frame_ranges)]
