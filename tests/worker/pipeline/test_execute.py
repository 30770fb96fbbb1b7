"""The loop that all models share, run with a small model of its own on a real video."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from iscc_samples import videos

from shared.catalog import CATALOG, ModelSpec, Params
from shared.errors import InvalidRequest, OutOfMemory
from shared.values import OutputFile, Progress, Result, Timeline
from worker.models.contract import (
    AnyModelDefinition,
    ArrayOutput,
    CachedFeatures,
    ClipPlan,
    KeyframeRequests,
    LoadedModel,
    ModelDefinition,
    ModelOutput,
    Plan,
    ProgressCallback,
    RenderContext,
    RunContext,
    RunInputs,
    VideoPlan,
    WindowOutput,
    hold_outputs,
)
from worker.pipeline import StageTracker
from worker.pipeline.execute import Execution, execute_run
from worker.pipeline.stages import STAGE_SHARES
from worker.runtime.placement import Placement
from worker.video.probe import probe_video
from worker.video.reader import VideoReader
from worker.video.transform import View, apply_view
from worker.video.windows import ClipSpec, WindowSpec

Floats = npt.NDArray[np.float32]
CLIP = next(path for path in videos() if path.name == "demo.mp4")
FITS = 2


class Cancelled(Exception):
    """Raised by a report to stop a run."""


@dataclass
class Watch:
    """A reporter that records, and stops the run at a stage."""

    stop_at: str | None = None
    fractions: list[float] = field(default_factory=list)
    notes: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def report_progress(self, progress: Progress) -> None:
        self.fractions.append(progress.fraction)
        running = [stage.name for stage in progress.stages if stage.state == "running" and stage.done]
        if self.stop_at in running:
            raise Cancelled

    def log_event(self, action: str, **facts: Any) -> None:
        self.notes.append((action, facts))


class BrightnessSelector:
    """Requests every hundredth frame as a keyframe."""

    def add_output(self, output: WindowOutput[Floats]) -> KeyframeRequests:
        requests = tuple((n, f"{n:05d}.jpg") for n in range(output.start, output.stop) if n % 100 == 0)
        return KeyframeRequests(requests, output.stop - 1)

    def finish(self, frame_count: int) -> KeyframeRequests:
        return KeyframeRequests(((frame_count - 1, "last.jpg"),), frame_count - 1)


def _encode(_: object, frames_BTHWC: npt.NDArray[np.uint8], params: Params) -> npt.NDArray[np.float32]:
    if len(frames_BTHWC) > FITS:
        raise MemoryError
    return frames_BTHWC.mean(axis=(2, 3, 4), dtype=np.float32)


def _postprocess(scores: Floats, context: RunContext, params: Params) -> ModelOutput:
    span = context.timeline.time_range(0, len(context.timeline))
    return ModelOutput((Result("brightness", 0, span, data={"frames": len(scores), "mean": float(scores.mean())}),))


def _define_model(batch: int, encode: Any = _encode) -> AnyModelDefinition:
    return ModelDefinition(
        name="brightness",
        load_network=lambda folders, placement: None,
        plan=lambda video, inputs, params, placement: VideoPlan(View.scaled_to(16, 9), WindowSpec(10, 10), batch),
        encode=encode,
        open_writer=hold_outputs,
        infer=lambda network, outputs, params: np.concatenate([output.value for output in outputs]),
        postprocess=_postprocess,
        make_keyframe_selector=lambda params: BrightnessSelector(),
    )


@pytest.fixture(autouse=True)
def register_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CATALOG, "brightness", ModelSpec("brightness", "", "", "", Params, (), (), (), None))


def _run(
    definition: AnyModelDefinition, watch: Watch, scratch: Path, path: Path = CLIP, folders: Sequence[Path] = ()
) -> Execution:
    model = LoadedModel(definition, Placement(threads=2), tuple(folders))
    return execute_run(model, path, probe_video(path), RunInputs(), Params(), scratch, StageTracker(watch))


def test_a_run_reads_the_video_once_and_reports_progress(tmp_path: Path) -> None:
    watch = Watch()
    execution = _run(_define_model(batch=1), watch, tmp_path)
    [result] = execution.outcome.results
    assert result.data["frames"] == execution.video.frames == execution.frames_decoded
    assert watch.fractions == sorted(watch.fractions)
    stages = {stage.name: stage for stage in execution.stages}
    assert [stages[name].state for name in STAGE_SHARES] == ["done"] * 5 + ["waiting"]
    assert (stages["encode"].done, stages["encode"].of) == (execution.video.frames,) * 2
    assert watch.notes == []


def test_a_batch_that_does_not_fit_is_halved_and_results_are_the_same(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("small", "large")]
    for folder in folders:
        folder.mkdir()
    watch = Watch()
    small, large = _run(_define_model(1), Watch(), folders[0]), _run(_define_model(8), watch, folders[1])
    assert [facts["to"] for _, facts in watch.notes] == [4, 2]
    assert large.outcome == small.outcome


def test_a_batch_of_one_that_does_not_fit_is_out_of_memory(tmp_path: Path) -> None:
    def never(*_: object) -> npt.NDArray[np.float32]:
        raise MemoryError

    with pytest.raises(OutOfMemory):
        _run(_define_model(4, never), Watch(), tmp_path)
    assert not any(thread.name == "decode" for thread in threading.enumerate())


def test_a_cancelled_run_leaves_no_thread_behind(tmp_path: Path) -> None:
    with pytest.raises(Cancelled):
        _run(_define_model(1), Watch(stop_at="encode"), tmp_path)
    assert not any(thread.name == "decode" for thread in threading.enumerate())


def test_an_error_in_a_stage_is_raised_unchanged(tmp_path: Path) -> None:
    def broken(*_: object) -> npt.NDArray[np.float32]:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        _run(_define_model(1, broken), Watch(), tmp_path)


def test_a_fault_of_the_decoding_thread_reaches_the_caller(tmp_path: Path) -> None:
    impossible = VideoPlan(View.scaled_to(0, 0), WindowSpec(10, 10), 1)
    definition = replace(_define_model(1), plan=lambda *_: impossible)
    with pytest.raises(OSError, match="not supported"):
        _run(definition, Watch(), tmp_path)
    assert not any(thread.name == "decode" for thread in threading.enumerate())


def test_damage_in_the_middle_is_counted(tmp_path: Path) -> None:
    damaged = bytearray(CLIP.read_bytes())
    middle = len(damaged) // 2
    damaged[middle : middle + 2000] = bytes(2000)
    path = tmp_path / "damaged.mp4"
    path.write_bytes(damaged)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    execution = _run(_define_model(batch=1), Watch(), scratch, path)
    [result] = execution.outcome.results
    assert execution.video.decode_failures > 0
    assert 1300 < result.data["frames"] <= execution.video.frames


def _define_reader(plan: Plan, postprocess: Any = _postprocess) -> AnyModelDefinition:
    return replace(_define_model(1), plan=lambda *_: plan, postprocess=postprocess, make_keyframe_selector=None)


def _render_slowly(
    results: Sequence[Result], context: RenderContext, params: Params, report_progress: ProgressCallback
) -> tuple[OutputFile, ...]:
    for done in range(0, 100, 25):
        report_progress(done, 100)
    path = context.scratch / "rendered.txt"
    path.write_text(f"{len(results)} results of {context.run.video.frames} frames")
    return (OutputFile("text", path.name, "text/plain", path),)


def test_render_reports_its_progress_and_yields_files(tmp_path: Path) -> None:
    watch = Watch()
    execution = _run(replace(_define_model(batch=1), render=_render_slowly), watch, tmp_path)
    stage = execution.stages[4]
    assert (stage.name, stage.done, stage.of, stage.unit) == ("render", 100, 100, "frame")
    assert np.allclose(np.diff(watch.fractions[-4:]), 0.25 * STAGE_SHARES["render"])
    [file] = execution.outcome.files
    assert file.path.read_text() == f"1 results of {execution.video.frames} frames"


def test_a_run_is_cancelled_while_it_renders(tmp_path: Path) -> None:
    with pytest.raises(Cancelled):
        _run(replace(_define_model(batch=1), render=_render_slowly), Watch(stop_at="render"), tmp_path)
    assert list(tmp_path.glob("*.txt")) == []


def test_arrays_become_files_before_anything_is_rendered(tmp_path: Path) -> None:
    def postprocess(scores: Floats, context: RunContext, params: Params) -> ModelOutput:
        arrays = {"scores": scores, "numbers": np.arange(3)}
        return ModelOutput(
            (), (ArrayOutput("one", "one.npy", {"scores": scores}), ArrayOutput("all", "all.npz", arrays))
        )

    definition = replace(_define_model(batch=1), postprocess=postprocess, render=_render_slowly)
    execution = _run(definition, Watch(), tmp_path)
    assert [file.kind for file in execution.outcome.files] == ["one", "all", "text"]
    one, several = (np.load(file.path) for file in execution.outcome.files[:2])
    assert np.array_equal(one, several["scores"])
    assert several["numbers"].tolist() == [0, 1, 2]


def test_the_shares_of_the_stages_are_the_whole() -> None:
    assert sum(STAGE_SHARES.values()) == pytest.approx(1)


def _report_range(_: Any, context: RunContext, __: Params) -> ModelOutput:
    span = context.timeline.time_range(context.first_frame, context.stop_frame)
    return ModelOutput((Result("brightness", 0, span),))


def _brightness(path: Path, frames: Sequence[int]) -> list[float]:
    """Mean of some frames, each fetched by itself."""
    view = View.scaled_to(16, 9)
    with VideoReader(path) as reader:
        return [
            float(apply_view(view, frame, reader.video).mean(dtype=np.float32))
            for frame in reader.read_frames_at(frames)
        ]


def test_a_part_of_a_video_is_read_by_its_times(tmp_path: Path) -> None:
    """By the times as the API writes them, rounded to the microsecond."""
    rate = probe_video(CLIP).clock.fps
    since, until = (Fraction(str(round(float(frame / rate), 6))) for frame in (375, 390))
    plan = VideoPlan(View.scaled_to(16, 9), WindowSpec(4, 4, pad_end=False), start_time=since, end_time=until)
    seen: list[WindowOutput[Floats]] = []
    definition = replace(_define_reader(plan, _report_range), infer=lambda network, pieces, params: seen.extend(pieces))
    execution = _run(definition, Watch(), tmp_path)
    [result] = execution.outcome.results
    assert result.range is not None
    assert (result.range.start.frame, result.range.end.frame) == (375, 390)
    assert [(piece.start, piece.stop, len(piece.value)) for piece in seen] == [
        (375, 379, 4), (379, 383, 4), (383, 387, 4), (387, 390, 3)
    ]  # fmt: skip
    values = [float(value) for piece in seen for value in piece.value]
    assert values == pytest.approx(_brightness(CLIP, range(375, 390)), abs=1e-3)
    encode = next(stage for stage in execution.stages if stage.name == "encode")
    assert (encode.done, encode.of) == (15, 15)


@pytest.mark.parametrize(("since", "until"), [("9999", None), ("1.001", "1.002")])
def test_a_part_without_a_frame_is_refused(since: str, until: str | None, tmp_path: Path) -> None:
    plan = VideoPlan(
        View.scaled_to(16, 9), WindowSpec(4, 4), start_time=Fraction(since), end_time=Fraction(until) if until else None
    )
    with pytest.raises(InvalidRequest, match="No frame") as caught:
        _run(_define_reader(plan), Watch(), tmp_path)
    assert caught.value.errors[0].pointer == "/params/start_s"


def test_named_frames_are_read_and_no_others(tmp_path: Path) -> None:
    clips = (ClipSpec((300, 304, 0), 0, 1), ClipSpec((302, 300), 1, 2), ClipSpec((900,), 2, 3))
    seen: list[WindowOutput[Floats]] = []
    definition = _define_reader(ClipPlan(View.scaled_to(16, 9), clips), lambda *_: ModelOutput())
    definition = replace(definition, infer=lambda network, pieces, params: seen.extend(pieces))
    execution = _run(definition, Watch(), tmp_path)
    assert [(piece.start, piece.stop) for piece in seen] == [(0, 1), (1, 2), (2, 3)]
    known = dict(zip((0, 300, 302, 304, 900), _brightness(CLIP, (0, 300, 302, 304, 900)), strict=True))
    for piece, clip in zip(seen, clips, strict=True):
        assert piece.value.tolist() == pytest.approx([known[frame] for frame in clip.frames], abs=1e-3)
    assert execution.frames_decoded < execution.video.frames


class TextWriter:
    """Writes the values down and holds how many there were."""

    def __init__(self, scratch: Path) -> None:
        self.file = (scratch / "values.txt").open("w")

    def write_output(self, output: WindowOutput[Floats]) -> WindowOutput[npt.NDArray[np.int64]]:
        self.file.writelines(f"{value:.3f}\n" for value in output.value)
        return WindowOutput(output.start, output.stop, np.array([len(output.value)]))

    def close(self) -> None:
        self.file.close()


@pytest.mark.parametrize("stop_at", [None, "encode"], ids=["to the end", "given up"])
def test_a_writer_takes_what_is_too_large_to_hold(stop_at: str | None, tmp_path: Path) -> None:
    writers: list[TextWriter] = []

    def writer(params: Params, video: object, scratch: Path) -> TextWriter:
        writers.append(TextWriter(scratch))
        return writers[0]

    def count_frames(scores: npt.NDArray[np.int64], context: RunContext, params: Params) -> ModelOutput:
        return ModelOutput((Result("brightness", 0, data={"frames": int(scores.sum())}),))

    definition = replace(_define_model(1), open_writer=writer, postprocess=count_frames)
    if stop_at:
        with pytest.raises(Cancelled):
            _run(definition, Watch(stop_at), tmp_path)
    else:
        execution = _run(definition, Watch(), tmp_path)
        [result] = execution.outcome.results
        written = (tmp_path / "values.txt").read_text().splitlines()
        assert len(written) == result.data["frames"] == execution.video.frames
    assert writers[0].file.closed


def test_restored_features_are_not_read_again(tmp_path: Path) -> None:
    def reread(files: Any, video: Any) -> CachedFeatures[Floats]:
        values = np.load(files["kept"])
        with VideoReader(CLIP) as reader:
            timeline = Timeline(reader.clock, reader.packets.pts, reader.packets.end_pts)
        return CachedFeatures((WindowOutput(0, len(values), values),), timeline, decode_failures=3)

    np.save(tmp_path / "kept.npy", np.arange(10, dtype=np.float32))
    model = LoadedModel(replace(_define_model(1), restore_features=reread), Placement(threads=2), ())
    inputs = RunInputs(cached_files={"kept": tmp_path / "kept.npy"})
    execution = execute_run(model, CLIP, probe_video(CLIP), inputs, Params(), tmp_path, StageTracker(Watch()))
    [result] = execution.outcome.results
    assert result.data == {"frames": 10, "mean": 4.5}
    assert execution.frames_decoded == 0
    assert execution.video.decode_failures == 3
