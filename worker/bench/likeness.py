"""`sceneworks-worker bench r2plus1d`: from a film to its embedding, against the published pipeline's way, by turns."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt
import torch
import typer

from shared.catalog import R2plus1dParams
from worker.bench.drawn import networks
from worker.bench.measured import Measured, Served, head, part, row
from worker.bench.published.likeness import PublishedEmbedding
from worker.models.contract import Model, Piece
from worker.models.placement import place
from worker.models.r2plus1d.network import R2Plus1D
from worker.pipeline import Execution

PARAMS = R2plus1dParams()

Floats = npt.NDArray[np.float32]


def bench_r2plus1d(film: Path, start: float, seconds: float | None, rounds: int, published_rounds: int) -> None:
    """Measure and print.

    Args:
        film: a video.
        start, seconds: the part of it; None: all.
        rounds, published_rounds: how often ours and the published way are measured.
    """
    here = place("cpu", "auto", "torch", 0)
    torch.set_num_threads(here.threads)
    with TemporaryDirectory(prefix="sceneworks-bench-") as name:
        folder = Path(name)
        path = part(film, start, seconds, folder) if seconds else film
        both = networks("r2plus1d", R2Plus1D, here)
        way, published = PublishedEmbedding(both.published), Measured("published way, fp32")
        ours = [Served(f"ours, {precision}", model=both.model("r2plus1d", precision)) for precision in both.placed]
        found: list[Execution] = []
        for turn in range(max(rounds, published_rounds)):
            if turn < published_rounds:
                with published.round():
                    way.run(path)
            if turn < rounds:
                found = [each.run(path, PARAMS, folder / f"{number} {turn}") for number, each in enumerate(ours)]
        head(film.name, way.frames, both.weights, "film to embedding")
        row(published, published, way.parts)
        for each in ours:
            row(published, each, each.parts)
        same = apart(embedding_of(ours[0].model, way), way.embedding)
        typer.echo(f"\nours, fp32, on the same pictures: within {same:.2g} of the largest value")
        for each, execution in zip(ours, found, strict=True):
            own = apart(np.array(execution.outcome.embeddings[0].vector, np.float32), way.embedding)
            typer.echo(f"{each.name}, on its own pictures: within {own:.2g} of it")


def embedding_of(model: Model, way: PublishedEmbedding) -> Floats:
    """What the room makes of the clips that the published way saw: (2048,)."""
    room, network = model.room, model.network(PARAMS)
    values = np.concatenate([room.encode(network, clip_THWC[None], PARAMS) for clip_THWC in way.clips])
    embedding: Floats = room.infer(network, [Piece(at, at + 1, value) for at, value in enumerate(values)], PARAMS)[0]
    return embedding


def apart(found: Floats, right: Floats) -> float:
    """Largest difference over the largest value."""
    return float(np.abs(found - right).max() / np.abs(right).max())
