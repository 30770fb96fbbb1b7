"""What holds for every model of the catalog, whatever it does. A new model is tested by being there."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import fields, is_dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from shared.catalog import CATALOG, ModelSpec, Params
from shared.errors import WeightsMissing
from tests.support.model_runs import CPU_PLACEMENT, make_shots_video, run_model, run_needed_models
from tests.support.seeded_networks import NETWORKS
from worker.models import load_definition
from worker.models.contract import ClipPlan, KeyframePlan, LoadedModel, Plan, RunInputs, VideoPlan, WindowOutput
from worker.pipeline.encoder import same_shape_prefix, trim_padding
from worker.pipeline.reading import clip_windows, video_windows
from worker.video.keyframes.loader import load_windows
from worker.video.probe import probe_video
from worker.video.reader import VideoReader
from worker.video.windows import Window


def ways(spec: ModelSpec) -> Iterator[Params]:
    """The parameters by default, and each value with which the model needs no weights."""
    yield spec.params.model_validate(dict(spec.example) | QUICK.get(spec.name, {}))
    for name, value in spec.weightless_when:
        yield spec.params.model_validate({name: value})


LENGTHS = [20, 16, 16, 16]
Encode = Callable[[ModelSpec, Params], list[WindowOutput]]
QUICK: dict[str, dict[str, Any]] = {
    "clip_it": {"sample_every": 30},
    "mttr": {"short_side": 96, "end_s": 1.2},
    "r2plus1d": {"clips": 2},
}
"""Parameters with which a network costs less and does the same."""
ON_REQUEST = {"scene_clip", "masks"}
"""Kinds of file that the default parameters do not make."""

WAYS = [
    pytest.param(spec, params, id=f"{spec.name}-{n}")
    for spec in CATALOG.values()
    for n, params in enumerate(ways(spec))
]
every_way = pytest.mark.parametrize(("spec", "params"), WAYS)
every_weights = pytest.mark.parametrize(
    "spec", [spec for spec in CATALOG.values() if spec.weights], ids=lambda spec: spec.name
)


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four shots."""
    return make_shots_video(LENGTHS, tmp_path_factory.mktemp("film") / "four.mp4")


def model_of(spec: ModelSpec) -> LoadedModel:
    """In place, with its weights or with name-seeded ones."""
    return LoadedModel(
        load_definition(spec.name), CPU_PLACEMENT, (), NETWORKS[spec.name]() if spec.name in NETWORKS else None
    )


@contextmanager
def windows_of(plan: Plan, path: Path) -> Iterator[Iterator[Window]]:
    """What the loop would read."""
    with VideoReader(path) as reader:
        match plan:
            case VideoPlan():
                yield video_windows(reader, plan)
            case ClipPlan():
                yield clip_windows(reader, plan)
            case KeyframePlan():
                yield load_windows(plan.keyframes_zip, plan.windows, plan.crop)


def pieces(spec: ModelSpec, params: Params, path: Path, batch: int, given: RunInputs) -> list[WindowOutput[Any]]:
    """Plan and encode without the loop, `batch` windows at a time."""
    model, made = model_of(spec), []
    with windows_of(model.definition.plan(probe_video(path), given, params, CPU_PLACEMENT), path) as ready:
        while now := tuple(islice(ready, batch)):
            while now:
                together = same_shape_prefix(now)
                now = now[len(together) :]
                frames_BTHWC = np.stack([window.frames_THWC for window in together])
                values = model.definition.encode(model.get_network(params), frames_BTHWC, params)
                assert len(values) == len(together)
                for window, value in zip(together, values, strict=True):
                    made.append(WindowOutput(window.start, window.stop, trim_padding(window, value)))
                    assert {array.dtype for array in arrays(value)} == {np.dtype(np.float32)}
    return made


@pytest.fixture(scope="module")
def alone(film: Path, tmp_path_factory: pytest.TempPathFactory) -> Encode:
    """The pieces of the film, one window at a time; encoded once for all tests that compare with them."""
    kept: dict[tuple[str, str], list[WindowOutput]] = {}

    def encode(spec: ModelSpec, params: Params) -> list[WindowOutput]:
        key = (spec.name, params.model_dump_json())
        if key not in kept:
            given = run_needed_models(spec.name, params, film, tmp_path_factory.mktemp("needed"))
            kept[key] = pieces(spec, params, film, 1, given)
        return kept[key]

    return encode


def arrays(value: Any) -> list[npt.NDArray[Any]]:
    """The arrays that a piece is made of, whatever it is."""
    if isinstance(value, np.ndarray):
        return [value]
    if is_dataclass(value):
        value = [getattr(value, each.name) for each in fields(value)]
    return [array for each in value for array in arrays(each)] if isinstance(value, list | tuple) else []


def small(
    spec: ModelSpec, params: Params, path: Path, scratch: Path, made: list[WindowOutput[Any]]
) -> list[WindowOutput[Any]]:
    """What the loop holds of the pieces."""
    scratch.mkdir()
    with closing(model_of(spec).definition.open_writer(params, probe_video(path), scratch)) as writer:
        return [writer.write_output(piece) for piece in made]


@every_way
def test_the_stages_are_pure(spec: ModelSpec, params: Params, film: Path, alone: Encode, tmp_path: Path) -> None:
    given, model = run_needed_models(spec.name, params, film, tmp_path), model_of(spec)
    first, second = alone(spec, params), pieces(spec, params, film, 1, given)
    assert [one.tobytes() for one in held(first)] == [other.tobytes() for other in held(second)]
    before = [array.copy() for array in held(first)]
    kept = [small(spec, params, film, tmp_path / f"{n}", made) for n, made in enumerate((first, second, first))]
    scores = [model.definition.infer(model.get_network(params), each, params) for each in kept]
    assert len({pickle.dumps(one) for one in scores}) == 1
    assert all(np.array_equal(one, copy) for one, copy in zip(held(first), before, strict=True))


@every_way
def test_a_batch_of_n_is_n_batches_of_one(
    spec: ModelSpec, params: Params, film: Path, alone: Encode, tmp_path: Path
) -> None:
    given = run_needed_models(spec.name, params, film, tmp_path)
    each, together = alone(spec, params), pieces(spec, params, film, 3, given)
    assert [(one.start, one.stop) for one in each] == [(one.start, one.stop) for one in together]
    for one, other in zip(held(each), held(together), strict=True):
        assert np.abs(one - other).max() <= 1e-5 * max(1.0, np.abs(other).max())


def held(made: list[WindowOutput[Any]]) -> list[npt.NDArray[Any]]:
    """All arrays of some pieces."""
    return [array for piece in made for array in arrays(piece.value)]


@every_way
@pytest.mark.parametrize("lengths", [[1], [2], [60]], ids=["one frame", "two frames", "one shot"])
def test_a_tiny_video_is_a_video(spec: ModelSpec, params: Params, lengths: list[int], tmp_path: Path) -> None:
    path = make_shots_video(lengths, tmp_path / "tiny.mp4")
    given = run_needed_models(spec.name, params, path, tmp_path)
    outcome = run_model(spec.name, path, params, tmp_path / "scratch", inputs=given).outcome
    assert outcome.results
    check(spec, outcome, sum(lengths))


@every_way
def test_what_a_run_yields_is_in_the_catalog(spec: ModelSpec, params: Params, film: Path, tmp_path: Path) -> None:
    given = run_needed_models(spec.name, params, film, tmp_path)
    execution = run_model(spec.name, film, params, tmp_path / "scratch", inputs=given)
    check(spec, execution.outcome, sum(LENGTHS))
    again = run_model(spec.name, film, params, tmp_path / "again", inputs=given)
    assert again.outcome.results == execution.outcome.results
    for one, other in zip(execution.outcome.files, again.outcome.files, strict=True):
        assert one.path.read_bytes() == other.path.read_bytes()


def check(spec: ModelSpec, outcome: Any, frames: int) -> None:
    """Kinds as promised, ranges inside the video and not empty, numbered in order, files that can be opened."""
    for kind in {result.kind for result in outcome.results}:
        assert kind in spec.results
        numbers = [result.seq for result in outcome.results if result.kind == kind]
        assert numbers == list(range(len(numbers)))
    for result in outcome.results:
        assert result.score is None or 0 <= result.score <= 1
        assert result.range is None or 0 <= result.range.start.frame < result.range.end.frame <= frames
    kinds = {file.kind for file in outcome.files}
    assert kinds == set(spec.artifacts) - ON_REQUEST
    embedded = [result for result in outcome.results if result.kind == "embedding"]
    assert [(one.seq, one.range) for one in outcome.embeddings] == [(one.seq, one.range) for one in embedded]
    for file in outcome.files:
        assert file.media_type != "application/zip" or zipfile.ZipFile(file.path).testzip() is None


@every_weights
def test_without_its_weights_a_model_says_what_to_do(
    spec: ModelSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert spec.weights is not None
    # a machine without the package: its record is looked for in folders, of which there are none now
    monkeypatch.setattr("sys.path", [])
    with pytest.raises(WeightsMissing) as caught:
        load_definition(spec.name).load_network((tmp_path,), CPU_PLACEMENT)
    assert spec.weights.how in caught.value.detail
