"""`sceneworks-worker bench mttr`: from a film to masks for two queries, against the published way, by turns.

No film is drawn on either side; ours writes its lines with the masks in them. A query is read by the text encoder in
every round, though a worker remembers it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
import typer
from tokenizers.pre_tokenizers import ByteLevel
from transformers import RobertaTokenizer

from shared.catalog import MttrParams
from shared.values.tracks import TrackFrame
from worker.bench.drawn import Networks, networks
from worker.bench.measured import Measured, Served, head, part, row
from worker.bench.published.masks import STEP, PublishedMasks, resized
from worker.encoders.roberta import SPECIAL, tokens
from worker.models.contract import Model
from worker.models.mttr.config import WINDOWS
from worker.models.mttr.grounding import Grounding, tidied
from worker.models.mttr.network import MTTR
from worker.models.mttr.tracks.linking import choose
from worker.models.mttr.tracks.masks import decoded
from worker.models.mttr.tracks.writer import read, track_frames
from worker.models.placement import Placement, place

PARAMS = MttrParams(queries=("the man on the left", "a car that drives away"), overlay=False)


def bench_mttr(film: Path, start: float, seconds: float | None, rounds: int, published_rounds: int) -> None:
    """Measure and print.

    Args:
        film: a video.
        start, seconds: the part of it; None: all. The published way holds every frame in full size.
        rounds, published_rounds: how often ours and the published way are measured.
    """
    here = place("cpu", "auto", "torch", 0)
    torch.set_num_threads(here.threads)
    with TemporaryDirectory(prefix="sceneworks-bench-") as name:
        folder = Path(name)
        path = part(film, start, seconds, folder) if seconds else film
        both = groundings(here)
        way, published = _published(both), Measured("published way, fp32")
        ours = [Served(f"ours, {precision}", model=_model(both, precision)) for precision in both.placed]
        for turn in range(max(rounds, published_rounds)):
            if turn < published_rounds:
                with published.round():
                    way.run(path, PARAMS.queries)
            for each, precision in zip(ours if turn < rounds else (), both.placed, strict=False):
                each.model = _model(both, precision)
                each.run(path, PARAMS, folder / f"{precision} {turn}")
        head(film.name, len(way.film), both.weights, f"film to masks, {len(PARAMS.queries)} queries")
        row(published, published, way.parts)
        for each in ours:
            row(published, each, each.parts)
        typer.echo(f"\nours, fp32, on the same pictures: {compared(way, said_of(_model(both, 'fp32'), way))}")
        for each, precision in zip(ours, both.placed, strict=True):
            lines = read(folder / f"{precision} 0" / "tracks.jsonl")
            typer.echo(f"{each.name}, on its own pictures: {compared(way, lines)}")


def groundings(here: Placement) -> Networks[MTTR]:
    """The network for both sides."""
    return networks("mttr", MTTR, here, lambda loaded: loaded.placed)


def grounding(both: Networks[MTTR], precision: str) -> Grounding:
    """What the room loads: the network with a tokenizer that remembers no sentence."""
    tokenizer = letters() if both.loaded is None else both.loaded.tokenizer
    return Grounding(both.placed[precision], tokenizer)


def letters() -> RobertaTokenizer:
    """A tokenizer whose tokens are single letters, where no vocabulary was imported: sentences become longer."""
    ids = dict(SPECIAL) | {"<unk>": 3}
    ids |= {letter: number for number, letter in enumerate(sorted(ByteLevel.alphabet()), start=len(ids))}
    return RobertaTokenizer(vocab=ids, merges=[])


def said_of(model: Model, way: PublishedMasks) -> Iterator[TrackFrame]:
    """What the room says of the pictures that the published way saw: a line for each frame and query."""
    network, shown = model.network(PARAMS), way.film.shape[1:3]
    for first in range(0, len(way.film), STEP):
        window_TCHW = resized(way.film[first : first + WINDOWS.length], PARAMS.short_side)
        frames_1THWC = window_TCHW.permute(0, 2, 3, 1)[None].to(torch.uint8).numpy()
        [answers] = model.room.encode(network, frames_1THWC, PARAMS)
        numbers = range(first, min(first + STEP, len(way.film)))
        for query, answer in enumerate(answers):
            yield from track_frames(query, answer, choose(answer, None, link=False).instance, numbers, shown)


def compared(way: PublishedMasks, lines: Iterable[TrackFrame]) -> str:
    """In words: how many pixels of all masks are others."""
    frames = other = pixels = 0
    for line in lines:
        mask_HW = decoded(line.mask).astype(bool)
        differ = int(np.count_nonzero(mask_HW != way.masks[line.query][line.frame]))
        frames, other, pixels = frames + 1, other + differ, pixels + mask_HW.size
    masked = sum(int(np.count_nonzero(masks)) for masks in way.masks)
    return f"{frames} masks, {other} of {pixels} pixels differ, {masked} are masked in the published way"


def _published(both: Networks[MTTR]) -> PublishedMasks:
    tokenizer = grounding(both, "fp32").tokenizer
    return PublishedMasks(both.published, lambda query: tokens(tokenizer, tidied(query)), PARAMS.short_side)


def _model(both: Networks[MTTR], precision: str) -> Model:
    return both.model("mttr", precision, grounding(both, precision))
