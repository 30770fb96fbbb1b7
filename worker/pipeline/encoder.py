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
from worker.models.contract import LoadedModel, WindowOutput
from worker.pipeline.stages import ProgressReporter
from worker.video.windows import Frames, Window


@dataclass(slots=True)
class WindowEncoder:
    """Sends windows through the network, fewer at a time once they did not fit."""

    model: LoadedModel
    network: Any
    params: Params
    batch_size: int
    reporter: ProgressReporter

    def encode_windows(self, windows: tuple[Window, ...]) -> Iterator[WindowOutput]:
        """A piece for each window, in order; OutOfMemory when a single one does not fit."""
        remaining = windows
        while remaining:
            batch = same_shape_prefix(remaining[: self.batch_size])
            values = self._try_encode(np.stack([window.frames_THWC for window in batch]))
            if values is None:
                self._halve_batch(len(batch))
                continue
            remaining = remaining[len(batch) :]
            for window, value in zip(batch, values, strict=True):
                yield WindowOutput(window.start, window.stop, trim_padding(window, value))

    def _try_encode(self, frames_BTHWC: Frames) -> npt.NDArray[np.float32] | Sequence[Any] | None:
        try:
            return self.model.definition.encode(self.network, frames_BTHWC, self.params)
        except (torch.OutOfMemoryError, MemoryError):
            return None
        except RuntimeError as error:
            if "can't allocate memory" in str(error):  # how torch says it on a CPU
                return None
            raise

    def _halve_batch(self, size: int) -> None:
        if size == 1:
            raise OutOfMemory("One window of frames does not fit into the memory of the device.")
        self.batch_size = size // 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        self.reporter.log_event("batch.halved", to=self.batch_size)


def same_shape_prefix(windows: tuple[Window, ...]) -> tuple[Window, ...]:
    """Those at the front that have the shape of the first: what goes through a network together."""
    shape = windows[0].frames_THWC.shape
    return tuple(takewhile(lambda window: window.frames_THWC.shape == shape, windows))


def trim_padding(window: Window, value: Any) -> Any:
    """What a network said of a window, without the rows for frames that the film does not have."""
    return value[: window.stop - window.start] if window.padded else value
