"""The golden of TransNet V2: the published package run on frames of a real clip.

`python -m tests.worker.models.shots.reference OUT.npz` writes `frames` (T, 27, 48, 3), `probabilities` (T,). It is a
program of its own, as the package changes the process that imports it.
"""

from __future__ import annotations

import sys

import numpy as np
from iscc_samples import videos

from tests.bench.shots import read_small_frames, run_baseline

FRAMES = 200
CLIP = next(path for path in videos() if path.name == "demo.mp4")

if __name__ == "__main__":
    frames = read_small_frames(CLIP)[:FRAMES]
    np.savez_compressed(sys.argv[1], frames=frames, probabilities=run_baseline(frames)[0])
