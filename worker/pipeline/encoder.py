"""Encode windows in batches; halve the batch when the device runs out of memory."""

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
    """Encodes windows in batches. The batch size is halved when a batch does not fit, and stays so for the run."""

    model: LoadedModel
    network: Any
    params: Params
    batch_size: int
    reporter: ProgressReporter

    def encode_windows(self, windows: tuple[Window, ...]) -> Iterator[WindowOutput[Any]]:
        """Yield one output for each window, in order; OutOfMemory when a single window does not fit."""
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
            # On a CPU torch raises no class of its own for lack of memory; its message is all there is to go by.
            if "can't allocate memory" in str(error):
                return None
            raise

    def _halve_batch(self, size: int) -> None:
        if size == 1:
            raise OutOfMemory("One window of frames does not fit into the memory of the device.")
        self.batch_size = size // 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()  # what the failed batch left in the allocator would still be counted
        self.reporter.log_event("batch.halved", to=self.batch_size)


def same_shape_prefix(windows: tuple[Window, ...]) -> tuple[Window, ...]:
    """The windows at the front that have the shape of the first: only these can be stacked into one batch."""
    shape = windows[0].frames_THWC.shape
    return tuple(takewhile(lambda window: window.frames_THWC.shape == shape, windows))


def trim_padding(window: Window, value: Any) -> Any:
    """The value of a window without the rows for padding behind the end of the video."""
    return value[: window.stop - window.start] if window.padded else value
