"""`sceneworks-worker bench bassl`: from a film to scenes, against the way of the published pipeline, by turns.

Ours is `shots` with `hsv_luv`, keyframes and contact sheet included, then `bassl` from those keyframes, by the loop
that serves. Both sides have the same weights, loaded before the clock starts.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np
import torch
import typer

from shared.catalog import BasslParams, ShotsParams
from shared.settings import settings
from shared.values import Result, Stage
from worker.bench.drawn import DRAWN, drawn
from worker.bench.measured import Measured, Quiet, part
from worker.bench.published.scenes import Pictures, PublishedWay, Scores, Span
from worker.encoders.published import find_card, import_weights, load_imported
from worker.encoders.weights import shapes
from worker.models import load
from worker.models.bassl.config import KEYFRAMES
from worker.models.bassl.network import BaSSL
from worker.models.bassl.weights import PUBLISHED
from worker.models.contract import Inputs, Model, Piece
from worker.models.placement import Placement, place
from worker.pipeline import Stages, execute
from worker.video.probe import probe

PICTURES = 32
"""Keyframes that go through the encoder together when the published way's are scored by ours."""
SHOTS = ShotsParams(detector="hsv_luv")


@dataclass(slots=True)
class Ours(Measured):
    """Both rooms in one arithmetic, and what they last found.

    Args:
        shots, bassl: the rooms, their networks loaded.
    """

    shots: Model = field(kw_only=True)
    bassl: Model = field(kw_only=True)
    spans: list[Span] = field(default_factory=list)
    scores: Scores = field(default_factory=lambda: np.empty(0, np.float32))
    encoded: int = 0
    parts: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def run(self, path: Path, scratch: Path) -> None:
        """From the film to scenes; files into `scratch`."""
        video, params = probe(path), BasslParams()
        places = [scratch / name for name in ("shots", "scenes")]
        for folder in places:
            folder.mkdir(parents=True)
        first = execute(self.shots, path, video, Inputs(), SHOTS, places[0], Stages(Quiet()))
        rows, files = first.outcome.results, {file.kind: file.path for file in first.outcome.files}
        inputs = Inputs({"shots": rows}, {"shots": files})
        second = execute(self.bassl, path, video, inputs, params, places[1], Stages(Quiet()))
        found = [row for row in second.outcome.results if row.kind == "boundary"]
        self.spans, self.scores = list(_spans(found)), np.array([row.score for row in found], np.float32)
        stages = {stage.name: stage for stage in second.stages}
        self.encoded = stages["encode"].done
        self.parts["decode, cuts, keyframes, sheet"].append(_seconds(first.stages))
        self.parts["encode keyframes"].append(stages["encode"].seconds or 0.0)
        self.parts["context network"].append(stages["infer"].seconds or 0.0)

    def scores_of(self, pictures_NKHWC: Pictures) -> Scores:
        """What the room says of other keyframes (N, 3, 224, 224, 3) -> (N,)."""
        room, params, network = self.bassl.room, BasslParams(), self.bassl.network(BasslParams())
        each_PTHWC = pictures_NKHWC.reshape(-1, 1, *pictures_NKHWC.shape[2:])
        parts = [
            room.encode(network, each_PTHWC[at : at + PICTURES], params) for at in range(0, len(each_PTHWC), PICTURES)
        ]
        pieces = [Piece(at, at + 1, value) for at, value in enumerate(np.concatenate(parts))]
        scores_N: Scores = room.infer(network, pieces, params).probabilities
        return scores_N


@dataclass(frozen=True, slots=True)
class Comparison:
    """All that was measured.

    Args:
        frames: of the film, as the published way counts them.
        way, published: the published pipeline's way, and its seconds.
        ours: in fp32 first, then in bf16 where this processor has it.
        weights: in words: which.
    """

    frames: int
    way: PublishedWay
    published: Measured
    ours: tuple[Ours, ...]
    weights: str

    @property
    def same_pictures(self) -> float:
        """Largest difference of the scores in fp32, both sides looking at the same keyframe pictures."""
        return _worst(self.way.scores, self.ours[0].scores_of(self.way.pictures))


def bench_bassl(film: Path, start: float, seconds: float, rounds: int, published_rounds: int) -> Comparison:
    """Measure and print.

    Args:
        film: a video.
        start, seconds: the part of it.
        rounds, published_rounds: how often ours and the published way are measured.
    """
    here = place("cpu", "auto", "torch", 0)
    torch.set_num_threads(here.threads)
    with TemporaryDirectory(prefix="sceneworks-bench-") as name:
        folder = Path(name)
        path = part(film, start, seconds, folder)
        weights, said = _weights(folder)
        way, ours = _published(weights), tuple(_ours(weights, here))
        published = Measured("published way, fp32")
        for turn in range(max(rounds, published_rounds)):
            if turn < published_rounds:
                with published.round():
                    way.run(path)
            for each in ours if turn < rounds else ():
                with each.round():
                    each.run(path, folder / f"{each.name} {turn}")
    made = Comparison(way.spans[-1][1], way, published, ours, said)
    _print(film.name, made)
    return made


def _ours(weights: Path, here: Placement) -> Iterator[Ours]:
    for precision in dict.fromkeys(["fp32", here.precision]):
        placed = Placement("cpu", precision, "torch", here.threads)
        rooms = [Model(load(name), placed, (weights,)) for name in ("shots", "bassl")]
        rooms[1].network(BasslParams())
        yield Ours(f"ours, {precision}", shots=rooms[0], bassl=rooms[1])


def _published(weights: Path) -> PublishedWay:
    with torch.device("meta"):
        network = BaSSL()
    state = load_imported(PUBLISHED.spec, [weights], shapes(network))
    network.load_state_dict(state, strict=True, assign=True)
    return PublishedWay(network.eval().requires_grad_(False))


def _weights(scratch: Path) -> tuple[Path, str]:
    """The folder of the imported weights, or one with weights drawn now; and in words which."""
    folder = settings().weights_dir
    if find_card(PUBLISHED.spec, [folder]) is not None:
        return folder, "imported"
    file = scratch / PUBLISHED.sources[0].name
    torch.save(drawn(BaSSL()).state_dict(), file)
    import_weights(PUBLISHED, [file], scratch, datetime.now(UTC))
    return scratch, DRAWN


def _print(film: str, made: Comparison) -> None:
    cores, shots = len(os.sched_getaffinity(0)), len(made.way.spans)
    typer.echo(f"{film}: {made.frames} frames, {shots} shots, {cores} cores; weights {made.weights}")
    rounds = f"{len(made.published.wall)} of the published way, {len(made.ours[0].wall)} of ours"
    typer.echo(f"medians of rounds: {rounds}\n")
    typer.echo(f"{'film to scenes':22} {'wall s':>8} {'ratio':>6} {'CPU s':>8} {'ratio':>6}  encoded; seconds by part")
    window = made.ours[0].bassl.network(BasslParams()).network.window
    _row(made.published, made.published, shots * window * KEYFRAMES, made.way.parts)
    for ours in made.ours:
        _row(made.published, ours, ours.encoded, ours.parts)
    low, high = float(made.way.scores.min()), float(made.way.scores.max())
    typer.echo(f"\nscores of the published way: {low:.4f} to {high:.4f}")
    typer.echo(f"ours, fp32, on the same keyframe pictures: within {made.same_pictures:.2g}")
    for ours in made.ours:
        typer.echo(f"{ours.name}, on its own keyframe pictures: {_own(made.way, ours)}")


def _row(base: Measured, each: Measured, encoded: int, parts: Mapping[str, Sequence[float]]) -> None:
    wall, cpu = median(each.wall), median(each.cpu)
    ratios = median(base.wall) / wall, median(base.cpu) / cpu
    said = ", ".join(f"{name} {median(seconds):.1f}" for name, seconds in parts.items())
    typer.echo(f"{each.name:22} {wall:8.1f} {ratios[0]:6.1f} {cpu:8.1f} {ratios[1]:6.1f}  {encoded} pictures; {said}")


def _own(way: PublishedWay, ours: Ours) -> str:
    """In words: what reading, scaling and storing keyframes in another way does to the scores."""
    if way.spans != ours.spans:
        return f"{len(set(ours.spans) - set(way.spans))} of {len(ours.spans)} shots are others"
    return f"the same shots, scores within {_worst(way.scores, ours.scores):.2g}"


def _worst(one: Scores, other: Scores) -> float:
    return float(np.abs(one - other).max())


def _spans(rows: Sequence[Result]) -> Iterator[Span]:
    for row in rows:
        if row.range is not None:
            yield row.range.start.frame, row.range.end.frame


def _seconds(stages: Sequence[Stage]) -> float:
    return sum(stage.seconds or 0.0 for stage in stages)
