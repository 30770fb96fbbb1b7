"""What one run reads: the film in order or by number, or pictures that an earlier run kept; and what it encodes."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
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
    OutputWriter,
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
"""Seconds by which a time may miss its frame: people copy them rounded to the microsecond."""

PLAN_UNITS = {VideoPlan: "frame", ClipPlan: "clip", KeyframePlan: "keyframe"}
"""What the stage `encode` counts."""


@dataclass(frozen=True, slots=True)
class ReadResult:
    """What came of reading: the pieces, what is known of the film now, and how many frames left the decoder."""

    outputs: list[WindowOutput]
    context: RunContext
    frames_decoded: int = 0


def count_plan_units(plan: Plan | None, video: VideoFacts) -> int:
    """Units of the stage `encode`; that of a part of a film by its nominal rate, until it is read."""
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
    """What `encode` counts."""
    return "frame" if plan is None else PLAN_UNITS[type(plan)]


@dataclass(slots=True)
class PlanReader:
    """What one run reads and encodes."""

    model: LoadedModel
    network: Any
    path: Path
    video: VideoFacts
    inputs: RunInputs
    params: Params
    scratch: Path
    stages: StageTracker

    def read_plan(self, plan: Plan | None) -> ReadResult:
        """Everything that the plan names, encoded."""
        match plan:
            case VideoPlan():
                return self._read_video(plan)
            case ClipPlan():
                return self._read_clips(plan)
            case KeyframePlan():
                outputs = self._encode_windows(
                    load_windows(plan.keyframes_zip, plan.windows, plan.crop), plan.batch_size, len
                )
                return ReadResult(outputs, self._build_context(self.video, Timeline.empty(self.video.clock)))
            case None:
                return ReadResult([], self._build_context(self.video, Timeline.empty(self.video.clock)))

    def restore_features(self, cached: CachedFeatures) -> ReadResult:
        """What an earlier run has kept; the film stays closed."""
        context = self._build_context(
            self.video.with_decode_failures(cached.decode_failures), cached.timeline, stop=len(cached.timeline)
        )
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
                keyframes = collector.finish_store(reader)
            whole = first == 0 and stop is None
            timeline = reader.timeline if whole else timeline_from_packets(reader)
            frames_read = outputs[-1].stop - first if outputs else 0
            self.stages.set_total("encode", frames_read)
            video = self.video.with_decode_failures(reader.decode_failures)
            context = self._build_context(video, timeline, keyframes, first=first, stop=first + frames_read)
            return ReadResult(outputs, context, reader.frames_decoded)

    def _read_clips(self, plan: ClipPlan) -> ReadResult:
        with self._open_reader() as reader:
            outputs = self._encode_windows(clip_windows(reader, plan), plan.batch_size, len)
            if plan.allow_decord and reader.decord_refusal:
                self.stages.reporter.log_event("decord.refused", reason=reader.decord_refusal)
            timeline = timeline_from_packets(reader)
            return ReadResult(
                outputs, self._build_context(self.video, timeline, stop=len(timeline)), reader.frames_decoded
            )

    def _open_reader(self) -> VideoReader:
        return VideoReader(self.path, threads=self.model.placement.decoder_threads, video=self.video)

    def _encode_windows(
        self,
        window_stream: Iterable[Window],
        batch: int,
        count_done: Callable[[list[WindowOutput]], int],
        on_output: Callable[[WindowOutput], None] = lambda _: None,
    ) -> list[WindowOutput]:
        encoder = WindowEncoder(self.model, self.network, self.params, batch, self.stages.reporter)
        outputs: list[WindowOutput] = []
        with self._open_writer() as writer, WindowPrefetcher(window_stream, batch) as prefetcher:
            for batch_windows in prefetcher:
                for output in encoder.encode_windows(batch_windows.windows):
                    outputs.append(writer.write_output(output) if writer else output)
                    on_output(output)
                self.stages.advance_stage("encode", count_done(outputs))
        return outputs

    @contextmanager
    def _open_writer(self) -> Iterator[OutputWriter | None]:
        if self.model.definition.open_writer is None:
            yield None
            return
        with closing(self.model.definition.open_writer(self.params, self.video, self.scratch)) as writer:
            yield writer

    def _build_context(
        self, video: VideoFacts, timeline: Timeline, keyframes: Path | None = None, first: int = 0, stop: int = 0
    ) -> RunContext:
        return RunContext(self.path, video, timeline, keyframes, self.scratch, self.inputs, first, stop)


def resolve_frame_range(reader: VideoReader, plan: VideoPlan) -> tuple[int, int | None]:
    """First frame and end (exclusive; None: the end of the film) of the part that a plan names.

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
        detail = f"No frame lies in this part of the film, which lasts {float(reader.video.duration):.3f} s."
        raise InvalidRequest(detail, errors=(FieldError("/params/start_s", "outside", detail),))
    return (0, None) if (first, stop) == (0, len(frame_pts)) else (first, stop)


def timeline_from_packets(reader: VideoReader) -> Timeline:
    """Exact times of all frames, read or not."""
    return Timeline(reader.clock, reader.packets.pts, reader.packets.end_pts)


def video_windows(
    reader: VideoReader, plan: VideoPlan, first: int = 0, stop: int | None = None, store: KeyframeStore | None = None
) -> Iterator[Window]:
    """The windows of a film, or of its frames `first` to `stop`."""
    view_fn = make_view_fn(plan.view, plan.preprocess)
    viewed_frames = view_frames(
        reader.read_frames(first, stop), reader.video, view_fn, plan.windows.uses_frame, store, first
    )
    return sliding_windows(viewed_frames, plan.windows, first)


def clip_windows(reader: VideoReader, plan: ClipPlan) -> Iterator[Window]:
    """The windows of a plan that names its frames."""
    wanted = {frame for clip in plan.clips for frame in clip.frames}
    view_fn = make_view_fn(plan.view, plan.preprocess)

    def view_clip_frames() -> Iterator[tuple[int, Frames]]:
        for frame in reader.read_frames_at(sorted(wanted), allow_decord=plan.allow_decord):
            yield frame.index, view_fn(frame, reader.video)

    return collect_clips(view_clip_frames(), plan.clips)
