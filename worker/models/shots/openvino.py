"""TransNet V2 computed by OpenVINO on CPU: an optional extra, for speed (`pip install sceneworks[openvino]`)."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from shared.errors import ModelUnavailable
from worker.models.shots.config import ARCHITECTURE, choose_windows
from worker.models.shots.network import TransNetV2
from worker.runtime.placement import Placement
from worker.video.windows import Frames

if TYPE_CHECKING:
    from openvino import Model

PRECISION_HINTS = {"fp32": "f32", "bf16": "bf16"}

TOLERANCES = {"fp32": 1e-3, "bf16": 0.1}
"""How far probabilities may be from those of torch in fp32."""


class OpenVinoDetector:
    """TransNet V2 compiled for windows of one length; checked against torch before it is used.

    Args:
        network: with its weights, in fp32.
        placement: precision and threads.

    Raises:
        ModelUnavailable: OpenVINO is not installed, the device is no CPU, or the results differ from those of torch.
    """

    def __init__(self, network: TransNetV2, placement: Placement) -> None:
        if placement.device != "cpu":
            raise ModelUnavailable("The runtime openvino computes on the CPU only.")
        try:
            from openvino import Core
        except ModuleNotFoundError:
            raise ModelUnavailable("The runtime openvino needs: pip install 'sceneworks[openvino]'") from None
        length = choose_windows(placement).length
        options = {
            "INFERENCE_PRECISION_HINT": PRECISION_HINTS[placement.precision],
            "INFERENCE_NUM_THREADS": placement.threads,
            "NUM_STREAMS": 1,
        }
        self._compiled: Any = Core().compile_model(_convert_network(network, length), "CPU", options)
        self._check_accuracy(network, length, TOLERANCES[placement.precision])

    def __call__(self, frames_BTHWC: Frames) -> npt.NDArray[np.float32]:
        """As `weights.Detector`, window by window: a larger batch is no faster on a CPU."""
        logits_BTH = np.concatenate([self._compiled(window[None])[0] for window in frames_BTHWC])
        probabilities_BT: npt.NDArray[np.float32] = 1 / (1 + np.exp(-logits_BTH[..., 0]))
        return probabilities_BT

    def _check_accuracy(self, network: TransNetV2, length: int, tolerance: float) -> None:
        frames_BTHWC = make_test_window(length)
        with torch.inference_mode():
            expected = network(torch.from_numpy(frames_BTHWC))[..., 0].sigmoid().numpy()
        largest_error = float(np.abs(self(frames_BTHWC) - expected).max())
        if not largest_error <= tolerance:
            raise ModelUnavailable(
                f"OpenVINO computes something else here: probabilities differ by up to {largest_error:.3f}."
            )


def make_test_window(length: int) -> Frames:
    """One window of frames with cuts: every 20 frames another pattern, with a little change within."""
    generator = np.random.default_rng(0)
    shape = (-(-length // 20), 9, 16, 3)
    patterns = generator.integers(0, 256, shape, np.uint8).repeat(3, axis=1).repeat(3, axis=2)
    frames_THWC = patterns.repeat(20, axis=0)[:length].astype(np.int16) + generator.integers(-4, 5, (length, 1, 1, 1))
    return frames_THWC.clip(0, 255).astype(np.uint8)[None]


def _convert_network(network: TransNetV2, length: int) -> Model:
    """Convert the network to a graph of OpenVINO by its frontend for traced torch modules."""
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    example = torch.zeros(1, length, ARCHITECTURE.height, ARCHITECTURE.width, 3, dtype=torch.uint8)
    with torch.inference_mode(), warnings.catch_warnings():
        # torch wants torch.export instead, of which OpenVINO converts less
        warnings.filterwarnings("ignore", r"`torch\.jit", DeprecationWarning)
        traced = torch.jit.trace(network, example, check_trace=False)  # type: ignore[no-untyped-call]
        decoder = TorchScriptPythonDecoder(traced, example_input=(example,))
        frontend = FrontEndManager().load_by_framework("pytorch")
        graph = frontend.load(decoder)  # calls back into the decoder, which has to outlive the conversion
        model: Model = frontend.convert(graph)
    model.reshape(list(example.shape))
    return model
