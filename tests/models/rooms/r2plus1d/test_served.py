"""Published files in their containers, imported and served; films of all kinds, by the real loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from shared.catalog import R2plus1dParams
from shared.errors import WeightsCorrupt, WeightsMissing
from shared.values import Result, Shot
from tests.models.films import PLACE, Quiet, shots_film
from tests.models.networks import r2plus1d
from tests.models.seeded import GOLDEN, SAME, off, rnd, table
from tests.worker.video.films import ffmpeg, pattern, rotated
from worker.encoders.published import import_weights
from worker.models.contract import Inputs, Model
from worker.models.placement import place
from worker.models.r2plus1d.clips import frames_of, starts
from worker.models.r2plus1d.config import CROP
from worker.models.r2plus1d.stages import ROOM, encode
from worker.models.r2plus1d.weights import PUBLISHED
from worker.pipeline import Execution, Stages, execute
from worker.video.probe import probe
from worker.video.reader import Reader
from worker.video.transform import View, see

AT = datetime(2026, 11, 20, 12, tzinfo=UTC)
State = dict[str, Tensor]


# Weights -------------------------------------------------------------------------------------------------------------


def flat(state: State) -> Any:
    """As published."""
    return state | {row.key: torch.tensor(0) for row in table("r2plus1d") if row.kind == "keep"}


def pretraining(state: State) -> Any:
    """`epoch_N.pth`: the whole network of CMD, without counters."""
    others = {"fc.weight": torch.ones(2, 2), "m_backbone.conv1.weight": torch.ones(2, 2), "k_embedding": torch.ones(3)}
    return others | {f"rgb_backbone.{key}": value for key, value in state.items()}


def wrapped(state: State) -> Any:
    """The same by DistributedDataParallel, and beside an epoch."""
    return {"epoch": 119, "state_dict": {f"module.{key}": value for key, value in pretraining(state).items()}}


@pytest.mark.parametrize("container", [flat, pretraining, wrapped], ids=["flat", "pre-training", "wrapped"])
def test_the_room_is_served_from_its_published_file(container: Callable[[State], Any], tmp_path: Path) -> None:
    state = {key: value for key, value in r2plus1d().network.state_dict().items() if "num_batches" not in key}
    torch.save(container(state), tmp_path / "published.pt")
    import_weights(PUBLISHED, [tmp_path / "published.pt"], tmp_path / "weights", AT)
    network = ROOM.load([tmp_path / "weights"], PLACE)
    served = network.network.state_dict()
    assert all(torch.equal(served[key], value) for key, value in state.items())
    assert len(served) == 228
    golden = np.load(GOLDEN / "r2plus1d.npz")
    with network.computing():
        clip_NCTHW = rnd(int(golden["x_seed"]), *golden["x_shape"].tolist())[:1]
        assert off(network.network(clip_NCTHW), golden["clip_features"][:1]) < SAME


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    torch.save({"rgb_backbone.conv1_s.weight": torch.ones(83, 3, 1, 7, 7)}, tmp_path / "epoch_1.pth")
    with pytest.raises(WeightsCorrupt, match=r"189 missing \(bn1_s\.bias, "):
        import_weights(PUBLISHED, [tmp_path / "epoch_1.pth"], tmp_path / "weights", AT)
    with pytest.raises(WeightsMissing, match="sceneworks-worker weights pull r2plus1d"):
        ROOM.load([tmp_path], PLACE)


# Films ---------------------------------------------------------------------------------------------------------------


class Heard(Quiet):
    """A report that remembers what was worth a line."""

    def __init__(self) -> None:
        self.notes: dict[str, Any] = {}

    def note(self, action: str, **facts: Any) -> None:
        self.notes[action] = facts


def ran(path: Path, params: R2plus1dParams, scratch: Path, inputs: Inputs | None = None) -> tuple[Execution, Heard]:
    """By the real loop."""
    heard = Heard()
    scratch.mkdir()
    model = Model(ROOM, PLACE, (), r2plus1d())
    return execute(model, path, probe(path), inputs or Inputs(), params, scratch, Stages(heard)), heard


def vectors(execution: Execution) -> npt.NDArray[np.float32]:
    return np.array([one.vector for one in execution.outcome.embeddings], np.float32)


def by_hand(path: Path, *spans: Sequence[Sequence[int]]) -> npt.NDArray[np.float32]:
    """The mean over the clips of each span, all frames read in order by PyAV."""
    with Reader(path) as reader:
        seen = [CROP.see(see(View.full(), frame, reader.video)) for frame in reader.frames()]
    distinct = sorted({tuple(clip) for clips in spans for clip in clips})
    frames_BTHWC = np.stack([np.stack([seen[frame] for frame in clip]) for clip in distinct])
    known = dict(zip(distinct, encode(r2plus1d(), frames_BTHWC, R2plus1dParams()), strict=True))
    return np.stack([np.mean([known[tuple(clip)] for clip in clips], axis=0) for clips in spans])


def test_a_film_is_the_mean_over_its_clips(tmp_path: Path) -> None:
    """Of 68 frames; still pictures, which decord and PyAV convert alike."""
    path = shots_film([30, 38], tmp_path / "film.mp4")
    execution, heard = ran(path, R2plus1dParams(clips=3), tmp_path / "scratch")
    wanted = by_hand(path, [frames_of(start, 68) for start in starts(68, 3)])
    assert off(vectors(execution), wanted) < 1e-3
    assert (heard.notes, execution.frames_decoded) == ({}, 0)  # decord served
    assert execution.stages[1].unit == "clip"


@pytest.mark.parametrize("length", [1, 20])
def test_a_short_film_starts_again_where_it_ends(length: int, tmp_path: Path) -> None:
    path = shots_film([length], tmp_path / "film.mp4")
    execution, _ = ran(path, R2plus1dParams(), tmp_path / "scratch")
    assert execution.stages[1].done == 1  # ten clips that are one
    wanted = by_hand(path, [[*range(0, length, 4), *[0] * 16][:16]])
    assert off(vectors(execution), wanted) < 1e-3


def rows_of(path: Path, *bounds: tuple[int, int]) -> list[Result]:
    """Shots of a film."""
    with Reader(path) as reader:
        assert sum(1 for _ in reader.frames())
        return [Shot(reader.timeline.range(*each)).result(seq) for seq, each in enumerate(bounds)]


def test_each_shot_is_embedded_by_itself(tmp_path: Path) -> None:
    """Also one of a single frame; times are those of `shots`."""
    path = shots_film([20, 1, 70], tmp_path / "film.mp4")
    bounds = (0, 20), (20, 21), (21, 91)
    rows = rows_of(path, *bounds)
    params = R2plus1dParams(per="shot", clips=2)
    execution, heard = ran(path, params, tmp_path / "scratch", Inputs({"shots": rows}))
    assert [row.range for row in execution.outcome.results] == [row.range for row in rows]
    assert [one.range for one in execution.outcome.embeddings] == [row.range for row in rows]
    clips = [
        [[first + frame for frame in frames_of(start, end - first)] for start in starts(end - first, 2)]
        for first, end in bounds
    ]
    assert off(vectors(execution), by_hand(path, *clips)) < SAME
    assert heard.notes == {}  # decord was not asked


def turned_film(out: Path) -> Path:
    rotated(out)
    return out


def stream(out: Path) -> Path:
    """A transport stream, in which decord miscounts."""
    ffmpeg(*pattern(), "-c:v", "libx264", "-preset", "veryfast", out)
    return out


@pytest.mark.parametrize(
    ("make", "name", "why"),
    [(turned_film, "film.mp4", "turned, deep or cut-off pictures"), (stream, "film.ts", "not exact in mpegts files")],
    ids=["rotated", "transport stream"],
)
def test_what_decord_cannot_read_pyav_does_and_says_so(
    make: Callable[[Path], Path], name: str, why: str, tmp_path: Path
) -> None:
    path = make(tmp_path / name)
    execution, heard = ran(path, R2plus1dParams(clips=1), tmp_path / "scratch")
    assert why in heard.notes["decord.refused"]["reason"]
    assert execution.frames_decoded >= 13
    assert off(vectors(execution), by_hand(path, [frames_of(0, 50)])) < SAME


@pytest.mark.skipif(place("cpu", "auto", "torch", 1).precision != "bf16", reason="this CPU does not compute in bf16")
def test_bf16_is_near(tmp_path: Path) -> None:
    path = shots_film([20], tmp_path / "film.mp4")
    execution, _ = ran(path, R2plus1dParams(), tmp_path / "scratch")
    scratch, bf16 = tmp_path / "bf16", replace(PLACE, precision="bf16")
    scratch.mkdir()
    placed = replace(r2plus1d(), precision="bf16")
    near = execute(
        Model(ROOM, bf16, (), placed), path, probe(path), Inputs(), R2plus1dParams(), scratch, Stages(Quiet())
    )
    one, other = vectors(execution)[0], vectors(near)[0]
    assert not np.array_equal(one, other)
    assert one @ other / np.linalg.norm(one) / np.linalg.norm(other) > 0.999
