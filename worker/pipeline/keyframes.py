"""Keep the keyframes that a model selects while the video is read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

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
    """Stores the keyframes of a model that has a selector; does nothing for a model without one.

    A context manager: a run that is given up leaves no ZIP file open.
    """

    store: KeyframeStore | None = None
    selector: KeyframeSelector[Any] | None = None
    _path: Path | None = None

    @staticmethod
    def for_run(
        model: LoadedModel, plan: VideoPlan, params: Params, scratch: Path, reader: VideoReader
    ) -> KeyframeCollector:
        """Build the collector of one run."""
        if model.definition.make_keyframe_selector is None:
            return KeyframeCollector()
        store = KeyframeStore(scratch / "keyframes.zip", reader.video, plan.keyframe_short_side)
        return KeyframeCollector(store, model.definition.make_keyframe_selector(params))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.store is not None and self._path is None:
            self.store.discard_file()

    def collect_from(self, output: WindowOutput[Any]) -> None:
        """Store the keyframes that one more window requests, and release frames that nothing can request any more."""
        if self.store is not None and self.selector is not None:
            requests = self.selector.add_output(output)
            self.store.save_frames(requests.frames, requests.horizon)

    def finish_store(self, reader: VideoReader) -> Path | None:
        """Finish the ZIP file: the last keyframes, and those whose pixels were released too early are decoded again."""
        if self.store is None or self.selector is None:
            return None
        requests = self.selector.finish(len(reader.timeline))
        self.store.save_frames(requests.frames, requests.horizon)
        self._path = self.store.finish_file(reader.read_frames_at)
        return self._path
