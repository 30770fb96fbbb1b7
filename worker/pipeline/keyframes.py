"""Keep the keyframes that a model selects while the video is read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from shared.catalog import Params
from worker.models.contract import (
    KeyframeSelector,
    LoadedModel,
    VideoPlan,
    WindowOutput,
)
from worker.video.keyframes.store import KeyframeStore
from worker.video.reader import VideoReader


@dataclass(slots=True)
class KeyframeCollector:
    """The pictures of a room that has a picker; nothing at all for one that has none.

    A context manager: a run that is given up leaves no archive open.
    """

    store: KeyframeStore | None = None
    picker: KeyframeSelector | None = None
    _path: Path | None = None

    @staticmethod
    def for_run(
        model: LoadedModel, plan: VideoPlan, params: Params, scratch: Path, reader: VideoReader
    ) -> KeyframeCollector:
        """For one run."""
        if model.definition.make_keyframe_selector is None:
            return KeyframeCollector()
        store = KeyframeStore(scratch / "pictures.zip", reader.video, plan.keyframe_short_side)
        return KeyframeCollector(store, model.definition.make_keyframe_selector(params))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.store is not None and self._path is None:
            self.store.discard_file()

    def collect_from(self, output: WindowOutput) -> None:
        """Store the pictures that one more piece names, and let go of those that nothing can name any more."""
        if self.store is not None and self.picker is not None:
            requests = self.picker.add_output(output)
            self.store.save_frames(requests.frames, requests.horizon)

    def finish_store(self, reader: VideoReader) -> Path | None:
        """The archive, after the last pictures and those that were let go too early."""
        if self.store is None or self.picker is None:
            return None
        requests = self.picker.finish(len(reader.timeline))
        self.store.save_frames(requests.frames, requests.horizon)
        self._path = self.store.finish_file(reader.read_frames_at)
        return self._path
