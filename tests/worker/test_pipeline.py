"""The loop that all models share, with a small room of its own and a real film."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, strategies as st
from iscc_samples import videos

from shared.catalog import MENU, ModelSpec, Params
from shared.errors import Cancelled, OutOfMemory
from shared.values import Progress, Result
from worker.models.contract import Film, FilmPlan, Inputs, Model, Outcome, Picks, Piece, Room
from worker.models.placement import Placement
from worker.pipeline import Execution, Stages, execute
from worker.video.feed import Windows, cut
from worker.video.probe import probe
from worker.video.transform import View

CLIP = next(path for path in videos() if path.name == "demo.mp4")
FITS = 2


@given(st.integers(0, 60), st.integers(1, 12), st.integers(0, 6), st.integers(0, 6))
def test_windows_answer_for_each_frame_once_and_see_what_they_should(
    count: int, step: int, lead: int, tail: int
) -> None:
    spec = Windows(length=lead + step + tail, step=step, lead=lead)
    frames = [np.full((1, 1, 1), n, np.uint8) for n in range(count)]
    windows = list(cut(iter(frames), spec))
    assert [n for window in windows for n in range(window.start, window.stop)] == list(range(count))
    for k, window in enumerate(windows):
        wanted = np.clip(np.arange(k * step - lead, k * step - lead + spec.length), 0, count - 1)
        assert window.frames_THWC.ravel().tolist() == wanted.tolist()


@pytest.mark.parametrize(("length", "step", "lead"), [(2, 3, 0), (0, 0, 0), (4, 3, 2)])
def test_impossible_windows_are_refused(length: int, step: int, lead: int) -> None:
    with pytest.raises(ValueError, match="impossible"):
        Windows(length, step, lead)


@dataclass
class Watch:
    """A report that remembers, and that stops the run where told."""

    stop_at: str | None = None
    fractions: list[float] = field(default_factory=list)
    notes: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def progress(self, progress: Progress) -> None:
        self.fractions.append(progress.fraction)
        running = [stage.name for stage in progress.stages if stage.state == "running" and stage.done]
        if self.stop_at in running:
            raise Cancelled

    def note(self, action: str, **facts: Any) -> None:
        self.notes.append((action, facts))


class Brightness:
    """Keeps a picture of every hundredth frame."""

    def feed(self, piece: Piece) -> Picks:
        wanted = tuple((n, f"{n:05d}.jpg") for n in range(piece.start, piece.stop) if n % 100 == 0)
        return Picks(wanted, piece.stop - 1)

    def end(self, frames: int) -> Picks:
        return Picks(((frames - 1, "last.jpg"),), frames - 1)


def _encode(_: object, frames_BTHWC: npt.NDArray[np.uint8], params: Params) -> npt.NDArray[np.float32]:
    if len(frames_BTHWC) > FITS:
        raise MemoryError
    return frames_BTHWC.mean(axis=(2, 3, 4), dtype=np.float32)


def _decode(scores: npt.NDArray[np.float32], film: Film, params: Params) -> Outcome:
    span = film.timeline.range(0, len(film.timeline))
    return Outcome((Result("brightness", 0, span, data={"frames": len(scores), "mean": float(scores.mean())}),))


def _room(batch: int, encode: Any = _encode) -> Room:
    return Room(
        name="brightness",
        load=lambda folders, placement: None,
        plan=lambda video, inputs, params, placement: FilmPlan(View.scaled(16, 9), Windows(10, 10), batch),
        encode=encode,
        infer=lambda network, pieces, params: np.concatenate([piece.value for piece in pieces]),
        decode=_decode,
        picker=lambda params: Brightness(),
    )


@pytest.fixture(autouse=True)
def on_the_menu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MENU, "brightness", ModelSpec("brightness", "", "", "", Params, (), (), (), None))


def _run(room: Room, watch: Watch, scratch: Path, path: Path = CLIP, folders: Sequence[Path] = ()) -> Execution:
    model = Model(room, Placement(threads=2), tuple(folders))
    return execute(model, path, probe(path), Inputs(), Params(), scratch, Stages(watch))


def test_a_run_reads_the_film_once_and_tells_how_it_goes(tmp_path: Path) -> None:
    watch = Watch()
    execution = _run(_room(batch=1), watch, tmp_path)
    [result] = execution.outcome.results
    assert result.data["frames"] == execution.video.frames == execution.frames_decoded
    assert watch.fractions == sorted(watch.fractions)
    stages = {stage.name: stage for stage in execution.stages}
    assert [stages[name].state for name in ("plan", "encode", "infer", "decode", "store")] == ["done"] * 4 + ["waiting"]
    assert (stages["encode"].done, stages["encode"].of) == (execution.video.frames,) * 2
    assert watch.notes == []


def test_a_batch_that_does_not_fit_is_halved_and_the_answer_is_the_same(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("small", "large")]
    for folder in folders:
        folder.mkdir()
    watch = Watch()
    small, large = _run(_room(1), Watch(), folders[0]), _run(_room(8), watch, folders[1])
    assert [facts["to"] for _, facts in watch.notes] == [4, 2]
    assert large.outcome == small.outcome


def test_a_batch_of_one_that_does_not_fit_is_out_of_memory(tmp_path: Path) -> None:
    def never(*_: object) -> npt.NDArray[np.float32]:
        raise MemoryError

    with pytest.raises(OutOfMemory):
        _run(_room(4, never), Watch(), tmp_path)
    assert not any(thread.name == "decode" for thread in threading.enumerate())


def test_a_run_that_is_told_to_stop_leaves_no_thread_behind(tmp_path: Path) -> None:
    with pytest.raises(Cancelled):
        _run(_room(1), Watch(stop_at="encode"), tmp_path)
    assert not any(thread.name == "decode" for thread in threading.enumerate())


def test_a_bug_in_a_stage_comes_out_as_itself(tmp_path: Path) -> None:
    def broken(*_: object) -> npt.NDArray[np.float32]:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        _run(_room(1, broken), Watch(), tmp_path)


def test_a_fault_of_the_decoding_thread_reaches_the_caller(tmp_path: Path) -> None:
    impossible = FilmPlan(View.scaled(0, 0), Windows(10, 10), 1)
    room = replace(_room(1), plan=lambda *_: impossible)
    with pytest.raises(OSError, match="not supported"):
        _run(room, Watch(), tmp_path)
    assert not any(thread.name == "decode" for thread in threading.enumerate())


def test_damage_in_the_middle_is_counted_and_said(tmp_path: Path) -> None:
    damaged = bytearray(CLIP.read_bytes())
    middle = len(damaged) // 2
    damaged[middle : middle + 2000] = bytes(2000)
    film = tmp_path / "damaged.mp4"
    film.write_bytes(damaged)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    execution = _run(_room(batch=1), Watch(), scratch, film)
    [result] = execution.outcome.results
    assert execution.video.decode_failures > 0
    assert 1300 < result.data["frames"] <= execution.video.frames
