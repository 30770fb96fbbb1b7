"""Read what a plan names (the video in order, frames by number, or stored keyframes) and encode it."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from shared.catalog import Params
from shared.errors import FieldError, InvalidRequest
from shared.values import Timeline, VideoFacts
from worker.models.contract import (
    CachedFeatures,
    ClipPlan,
    KeyframePlan,
    LoadedModel,
    Plan,
    RunContext,
    RunInputs,
    VideoPlan,
    WindowOutput,
)
from worker.pipeline.encoder import WindowEncoder
from worker.pipeline.keyframes import KeyframeCollector
from worker.pipeline.stages import StageTracker
from worker.video.keyframes.loader import load_windows
from worker.video.keyframes.store import KeyframeStore
from worker.video.prefetch import WindowPrefetcher, make_view_fn, view_frames
from worker.video.reader import VideoReader
from worker.video.windows import Frames, Window, collect_clips, sliding_windows

TIME_TOLERANCE_S = Fraction(1, 10_000)
"""Seconds by which a requested time may miss its frame: users copy times rounded to the microsecond."""

PLAN_UNITS = {VideoPlan: "frame", ClipPlan: "clip", KeyframePlan: "keyframe"}
"""The unit of progress of the stage `encode`, by kind of plan."""


@dataclass(frozen=True, slots=True)
class ReadResult:
    """Outcome of the stage `encode`.

    Args:
        outputs: of all windows, as the writer holds them.
        context: what is known about the video now that it was read.
        keyframes_zip: the stored keyframes; None without a selector.
        frames_decoded: frames that left the decoder.
    """

    outputs: list[WindowOutput[Any]]
    context: RunContext
    keyframes_zip: Path | None = None
    frames_decoded: int = 0


def count_plan_units(plan: Plan | None, video: VideoFacts) -> int:
    """Units of the stage `encode`; for a part of a video an estimate by the nominal frame rate."""
    match plan:
        case VideoPlan(end_time=None) if not plan.start_time:
            return video.frames
        case VideoPlan():
            until = video.duration if plan.end_time is None else min(plan.end_time, video.duration)
            return max(1, round((until - plan.start_time) * video.clock.fps))
        case ClipPlan():
            return len(plan.clips)
        case KeyframePlan():
            return len(plan.windows)
        case None:
            return 0


def plan_unit_name(plan: Plan | None) -> str:
    """The unit that `encode` counts."""
    return "frame" if plan is None else PLAN_UNITS[type(plan)]


@dataclass(slots=True)
class PlanReader:
    """Reads and encodes what the plan of one run names."""

    model: LoadedModel
    network: Any
    path: Path
    video: VideoFacts
    inputs: RunInputs
    params: Params
    scratch: Path
    stages: StageTracker

    def read_plan(self, plan: Plan | None) -> ReadResult:
        """Encode everything that the plan names; nothing without a plan."""
        match plan:
            case VideoPlan():
                return self._read_video(plan)
            case ClipPlan():
                return self._read_clips(plan)
            case KeyframePlan():
                outputs = self._encode_windows(
                    load_windows(plan.keyframes_zip, plan.windows, plan.crop), plan.batch_size, len
                )
                return ReadResult(outputs, self._unopened_context())
            case None:
                return ReadResult([], self._unopened_context())

    def restore_features(self, cached: CachedFeatures[Any]) -> ReadResult:
        """Use the features that an earlier run stored; the video is not opened."""
        video = self.video.with_decode_failures(cached.decode_failures)
        context = RunContext(video, cached.timeline, self.inputs, stop_frame=len(cached.timeline))
        return ReadResult(list(cached.outputs), context)

    def _read_video(self, plan: VideoPlan) -> ReadResult:
        with self._open_reader() as reader:
            first, stop = resolve_frame_range(reader, plan)
            collector = KeyframeCollector.for_run(self.model, plan, self.params, self.scratch, reader)
            with collector:
                window_stream = video_windows(reader, plan, first, stop, collector.store)
                outputs = self._encode_windows(
                    window_stream, plan.batch_size, lambda held: held[-1].stop - first, collector.collect_from
                )
                keyframes_zip = collector.finish_store(reader)
            whole = first == 0 and stop is None
            timeline = reader.timeline if whole else timeline_from_packets(reader)
            frames_read = outputs[-1].stop - first if outputs else 0
            self.stages.set_total("encode", frames_read)
            video = self.video.with_decode_failures(reader.decode_failures)
            context = RunContext(video, timeline, self.inputs, first, first + frames_read)
            return ReadResult(outputs, context, keyframes_zip, reader.frames_decoded)

    def _read_clips(self, plan: ClipPlan) -> ReadResult:
        with self._open_reader() as reader:
            outputs = self._encode_windows(clip_windows(reader, plan), plan.batch_size, len)
            if plan.allow_decord and reader.decord_refusal:
                self.stages.reporter.log_event("decord.refused", reason=reader.decord_refusal)
            timeline = timeline_from_packets(reader)
            context = RunContext(self.video, timeline, self.inputs, stop_frame=len(timeline))
            return ReadResult(outputs, context, frames_decoded=reader.frames_decoded)

    def _open_reader(self) -> VideoReader:
        return VideoReader(self.path, threads=self.model.placement.decoder_threads, video=self.video)

    def _encode_windows(
        self,
        window_stream: Iterable[Window],
        batch: int,
        count_done: Callable[[list[WindowOutput[Any]]], int],
        on_output: Callable[[WindowOutput[Any]], None] = lambda _: None,
    ) -> list[WindowOutput[Any]]:
        encoder = WindowEncoder(self.model, self.network, self.params, batch, self.stages.reporter)
        outputs: list[WindowOutput[Any]] = []
        # The writer is closed when a run is given up too, and after the thread that decodes has stopped.
        open_writer = self.model.definition.open_writer
        with (
            closing(open_writer(self.params, self.video, self.scratch)) as writer,
            WindowPrefetcher(window_stream, batch) as prefetcher,
        ):
            for batch_windows in prefetcher:
                for output in encoder.encode_windows(batch_windows.windows):
                    outputs.append(writer.write_output(output))
                    on_output(output)
                self.stages.advance_stage("encode", count_done(outputs))
        return outputs

    def _unopened_context(self) -> RunContext:
        return RunContext(self.video, Timeline.empty(self.video.clock), self.inputs)


def resolve_frame_range(reader: VideoReader, plan: VideoPlan) -> tuple[int, int | None]:
    """Find the first frame and the end (exclusive; None: the end of the video) of the part that a plan names.

    Raises:
        InvalidRequest: no frame lies in it.
    """
    if not plan.start_time and plan.end_time is None:
        return 0, None
    frame_pts, clock = reader.packets.pts, reader.clock

    def frame_at(seconds: Fraction) -> int:
        return bisect_left(frame_pts, clock.start_pts + (seconds - TIME_TOLERANCE_S) / clock.time_base)

    first, stop = frame_at(plan.start_time), len(frame_pts) if plan.end_time is None else frame_at(plan.end_time)
    if first >= stop:
        detail = f"No frame lies in this part of the video, which lasts {float(reader.video.duration):.3f} s."
        raise InvalidRequest(detail, errors=(FieldError("/params/start_s", "outside", detail),))
    return (0, None) if (first, stop) == (0, len(frame_pts)) else (first, stop)


def timeline_from_packets(reader: VideoReader) -> Timeline:
    """Exact times of all frames, read or not."""
    return Timeline(reader.clock, reader.packets.pts, reader.packets.end_pts)


def video_windows(
    reader: VideoReader, plan: VideoPlan, first: int = 0, stop: int | None = None, store: KeyframeStore | None = None
) -> Iterator[Window]:
    """Yield the windows of a video, or of its frames `first` to `stop`."""
    view_fn = make_view_fn(plan.view, plan.preprocess)
    viewed_frames = view_frames(
        reader.read_frames(first, stop), reader.video, view_fn, plan.windows.uses_frame, store, first
    )
    return sliding_windows(viewed_frames, plan.windows, first)


def clip_windows(reader: VideoReader, plan: ClipPlan) -> Iterator[Window]:
    """Yield the clips of a plan; each frame is decoded once, however many clips share it."""
    frame_numbers = {frame for clip in plan.clips for frame in clip.frames}
    view_fn = make_view_fn(plan.view, plan.preprocess)

    def view_clip_frames() -> Iterator[tuple[int, Frames]]:
        for frame in reader.read_frames_at(sorted(frame_numbers), allow_decord=plan.allow_decord):
            yield frame.index, view_fn(frame, reader.video)

    return collect_clips(view_clip_frames(), plan.clips)
