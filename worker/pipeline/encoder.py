"""Windows through a network, fewer at a time once they did not fit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from shared.catalog import Params
from shared.errors import OutOfMemory
from worker.models.contract import Model, Piece
from worker.pipeline.stages import Report
from worker.video.feed import Frames, Window


@dataclass(slots=True)
class Encoder:
    """Sends windows through the network, fewer at a time once they did not fit."""

    model: Model
    network: Any
    params: Params
    batch: int
    report: Report

    def pieces(self, windows: tuple[Window, ...]) -> Iterator[Piece]:
        """A piece for each window, in order; OutOfMemory when a single one does not fit."""
        left = windows
        while left:
            now = alike(left[: self.batch])
            values = self._try(np.stack([window.frames_THWC for window in now]))
            if values is None:
                self._halve(len(now))
                continue
            left = left[len(now) :]
            for window, value in zip(now, values, strict=True):
                yield Piece(window.start, window.stop, trimmed(window, value))

    def _try(self, frames_BTHWC: Frames) -> npt.NDArray[np.float32] | Sequence[Any] | None:
        try:
            return self.model.room.encode(self.network, frames_BTHWC, self.params)
        except (torch.OutOfMemoryError, MemoryError):
            return None
        except RuntimeError as error:
            if "can't allocate memory" in str(error):  # how torch says it on a CPU
                return None
            raise

    def _halve(self, size: int) -> None:
        if size == 1:
            raise OutOfMemory("One window of frames does not fit into the memory of the device.")
        self.batch = size // 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        self.report.note("batch.halved", to=self.batch)


def alike(windows: tuple[Window, ...]) -> tuple[Window, ...]:
    """Those at the front that have the shape of the first: what goes through a network together."""
    shape = windows[0].frames_THWC.shape
    return tuple(takewhile(lambda window: window.frames_THWC.shape == shape, windows))


def trimmed(window: Window, value: Any) -> Any:
    """What a network said of a window, without the rows for frames that the film does not have."""
    return value[: window.stop - window.start] if window.filled else value
