"""Read the motion vectors that the encoder stored: how the blocks of a frame moved, without comparing frames.

Two forms: `build_dense_map`, the map that CMD is trained with (Huang et al., arXiv:2104.00862; built there by the
loader of Wu et al., arXiv:1712.00636), and `build_grid`, the mean in each cell of 16 pixels. Both are in whole pixels
of the stored frame, x to the right and y downwards, from the position of a block in an earlier frame to its position
now. Vectors of B-frames that point to a later frame are left out. I-frames have none, nor have B-frames of MPEG-4:
its decoder does not keep them and reports zeros.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt
from av.sidedata.motionvectors import MotionVectors
from av.video.frame import PictureType, VideoFrame

from shared.errors import InvalidRequest, UnsupportedMedia
from shared.values import Moment
from worker.video.reader import Frame, VideoReader

MOTION_CODECS = {"h264": "H.264", "mpeg4": "MPEG-4"}
"""Codecs whose decoder exports motion vectors. HEVC, VP9 and AV1 have them too, but FFmpeg does not export them."""

CELL_PIXELS = 16
"""Pixels of a macroblock, the largest block of both codecs."""

MAX_SERIES_BYTES = 2**30
"""Largest size of the arrays that `collect_motion` may hold, in bytes."""

MotionVectorArray = npt.NDArray[np.void]
"""Rows of FFmpeg's `AVMotionVector`, in the order of the stream: `w`, `h` of the block, its centre `dst_x`, `dst_y`,
the centre `src_x`, `src_y` of the block that it was copied from, and `source`, which is positive for a later frame."""

FrameKind = Literal["I", "P", "B", "?"]
FRAME_KINDS: Mapping[int, FrameKind] = {PictureType.I: "I", PictureType.P: "P", PictureType.B: "B"}


@dataclass(frozen=True, slots=True, eq=False)
class FrameMotion:
    """The motion of one frame.

    Args:
        moment: its number and exact time.
        kind: how it was coded: `I` by itself, `P` from earlier frames, `B` from later ones too.
        av_frame: as decoded.
        vectors_V: those that point to earlier frames; empty for an I-frame, and for a B-frame of MPEG-4.
    """

    moment: Moment
    kind: FrameKind
    av_frame: VideoFrame
    vectors_V: MotionVectorArray


@dataclass(frozen=True, slots=True, eq=False)
class MotionGrid:
    """Motion by cells; R rows and C columns of them.

    Args:
        mean_RC2: mean (x, y) of the vectors of blocks whose centre lies in the cell; 0 without blocks.
        count_RC: number of these blocks; 0 where nothing was copied from another frame (I-frames, intra blocks).
    """

    mean_RC2: npt.NDArray[np.float32]
    count_RC: npt.NDArray[np.int32]


def read_motion(
    path: Path, start_s: Fraction = Fraction(0), max_frames: int | None = None, threads: int = 0
) -> Iterator[FrameMotion]:
    """Yield the motion of each frame.

    Args:
        path: a video in H.264 or MPEG-4 part 2.
        start_s: seconds; the first frame is the one shown at this time, or the next.
        max_frames: how many at most; None for all.
        threads: of the decoder; 0 for one a core.

    Raises:
        UnsupportedMedia: another codec, or no video. InvalidRequest: the video ends before `start_s`.
        NoVideoStream, MediaCorrupt: as `worker.video.probe`.
    """
    with VideoReader(path, threads, motion=True) as reader:
        codec = reader.video.codec
        if codec not in MOTION_CODECS:
            raise UnsupportedMedia(
                f"Motion vectors can be read from {' and '.join(MOTION_CODECS.values())}, not from {codec}."
            )
        first = _first_frame_from(reader, start_s) if start_s else 0
        for frame in reader.read_frames(first, None if max_frames is None else first + max_frames):
            yield _extract_motion(frame, reader)


def _first_frame_from(reader: VideoReader, start_s: Fraction) -> int:
    times, clock = reader.packets.pts, reader.clock
    first = bisect_left(times, clock.start_pts + start_s / clock.time_base)
    if first == len(times):
        raise InvalidRequest(f"The video ends before {float(start_s):g} s.")
    return first


def _extract_motion(frame: Frame, reader: VideoReader) -> FrameMotion:
    av_frame = frame.av_frame
    # PyAV's types declare a sequence, but `side_data` is a mapping by name too.
    vector_data = cast(Mapping[str, MotionVectors], av_frame.side_data).get("MOTION_VECTORS")
    kind = FRAME_KINDS.get(av_frame.pict_type, "?")
    vectors_V = (
        NO_VECTORS
        if vector_data is None or (kind == "B" and reader.video.codec == "mpeg4")
        else vector_data.to_ndarray()
    )
    return FrameMotion(
        reader.clock.moment_at(frame.index, frame.pts), kind, av_frame, vectors_V[vectors_V["source"] <= 0]
    )


NO_VECTORS: MotionVectorArray = np.empty(
    0, [("source", "i4"), ("w", "u1"), ("h", "u1"), *((name, "i2") for name in ("src_x", "src_y", "dst_x", "dst_y"))]
)
"""The vectors of an I-frame: no row, of the same type."""


def compute_displacements(vectors_V: MotionVectorArray) -> npt.NDArray[np.int32]:
    """Return (V, 2): the (x, y) by which each block moved, from its source to its place in this frame."""
    pairs = (("dst_x", "src_x"), ("dst_y", "src_y"))
    return np.stack([vectors_V[target].astype(np.int32) - vectors_V[origin] for target, origin in pairs], axis=1)


def build_grid(vectors_V: MotionVectorArray, height: int, width: int, cell: int = CELL_PIXELS) -> MotionGrid:
    """Compute the mean vector of each cell, and the number of blocks in it.

    Args:
        vectors_V: of one frame; blocks that did not move count too.
        height, width: of the frame.
        cell: pixels; the last row and column of cells may reach beyond the frame.
    """
    rows, columns = -(-height // cell), -(-width // cell)
    row_V, column_V = vectors_V["dst_y"] // cell, vectors_V["dst_x"] // cell
    # The centre of a block can lie outside the frame: coded sizes are padded to whole macroblocks.
    inside_V = (row_V >= 0) & (row_V < rows) & (column_V >= 0) & (column_V < columns)
    place_V = (row_V[inside_V].astype(np.intp) * columns) + column_V[inside_V]
    count_P = np.bincount(place_V, minlength=rows * columns)
    displacements_2V = compute_displacements(vectors_V)[inside_V].T
    sums_2P = np.stack([np.bincount(place_V, displacement_V, rows * columns) for displacement_V in displacements_2V])
    mean_P2 = (sums_2P / np.maximum(count_P, 1)).T.astype(np.float32)
    return MotionGrid(mean_P2.reshape(rows, columns, 2), count_P.reshape(rows, columns).astype(np.int32))


def build_dense_map(vectors_V: MotionVectorArray, height: int, width: int) -> npt.NDArray[np.int32]:
    """Compute the published map: for every pixel the (x, y) by which its block moved; 0 without a moved block.

    A block that moved writes its vector to each of its pixels whose position and source both lie inside the frame.
    Where blocks overlap, the later one counts. Vectors are not accumulated over frames.

    Args:
        vectors_V: of one frame, in the order of the stream, none that points to a later frame.
        height, width: of the frame.

    Returns:
        (height, width, 2).
    """
    displacements_V2 = compute_displacements(vectors_V)
    moved_V = displacements_V2.any(axis=1)
    vectors_V, displacements_V2 = vectors_V[moved_V], displacements_V2[moved_V]
    # Per pixel the number of the last block that covers it, -1 for none: one array operation for each block size
    # replaces a loop over thousands of blocks a frame.
    last_HW = np.full((height, width), -1, np.int32)
    for block_height, block_width in np.unique(np.stack([vectors_V["h"], vectors_V["w"]], axis=1), axis=0).tolist():
        number_B = np.flatnonzero((vectors_V["h"] == block_height) & (vectors_V["w"] == block_width))
        row_Bh = _covered_lines(vectors_V["dst_y"][number_B], displacements_V2[number_B, 1], block_height, height)
        column_Bw = _covered_lines(vectors_V["dst_x"][number_B], displacements_V2[number_B, 0], block_width, width)
        _write_blocks(last_HW, number_B, row_Bh, column_Bw)
    # Index -1 selects the row of zeros that is appended here: pixels without a moved block.
    return np.concatenate([displacements_V2, np.zeros((1, 2), np.int32)])[last_HW]


def _covered_lines(
    middle_B: npt.NDArray[Any], displacement_B: npt.NDArray[Any], length: int, limit: int
) -> npt.NDArray[np.intp]:
    """Return the rows (or columns) of each block, (B, length); -1 where the line or its source is outside the frame."""
    line_BL = middle_B[:, None].astype(np.intp) + np.arange(-(length // 2), length // 2)
    before_BL = line_BL - displacement_B[:, None]
    return np.where((line_BL >= 0) & (line_BL < limit) & (before_BL >= 0) & (before_BL < limit), line_BL, -1)


def _write_blocks(
    last_HW: npt.NDArray[np.int32],
    number_B: npt.NDArray[np.intp],
    row_Bh: npt.NDArray[np.intp],
    column_Bw: npt.NDArray[np.intp],
) -> None:
    """Write to each pixel the largest number of a block that covers it.

    Where an index occurs twice, numpy keeps the value assigned last, and block numbers ascend.
    """
    height, width = last_HW.shape
    place_Bhw = row_Bh[:, :, None] * width + column_Bw[:, None, :]
    place_Bhw[(row_Bh[:, :, None] < 0) | (column_Bw[:, None, :] < 0)] = height * width  # beside the frame
    written = np.full(height * width + 1, -1, np.int32)
    written[place_Bhw] = number_B[:, None, None]
    np.maximum(last_HW, written[:-1].reshape(height, width), out=last_HW)


# A part of a video ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class MotionSeries:
    """The motion of N frames as arrays.

    Args:
        moments: number and exact time of each frame.
        kinds: a letter for each frame.
        lengths_V: how far each block moved, in pixels; of all frames, blocks that did not move included.
        arrays: with `N` as first axis: `mean` and `count` of the grids, or `motion`, the dense maps.
    """

    moments: tuple[Moment, ...]
    kinds: str
    lengths_V: npt.NDArray[np.float32]
    arrays: Mapping[str, npt.NDArray[Any]]

    def compute_statistics(self) -> dict[str, Any]:
        """Count frames by kind and blocks; mean and 95th percentile of how far blocks moved (None without blocks)."""
        has_blocks = len(self.lengths_V) > 0
        return {
            "frames": {kind: self.kinds.count(kind) for kind in sorted(set(self.kinds))},
            "blocks": len(self.lengths_V),
            "mean": float(self.lengths_V.mean(dtype=np.float64)) if has_blocks else None,
            "p95": float(np.percentile(self.lengths_V, 95)) if has_blocks else None,
        }

    def save_npz(self, path: Path) -> Path:
        """Save everything but the lengths as NPZ: `frame`, `pts`, `seconds`, `kind` and the arrays."""
        frame_N, pts_N = (
            np.array([getattr(moment, name) for moment in self.moments], np.int64) for name in ("frame", "pts")
        )
        seconds_N = np.array([float(moment.seconds) for moment in self.moments])
        kind_N = np.array(list(self.kinds), "U1")
        arrays: dict[str, Any] = {"frame": frame_N, "pts": pts_N, "seconds": seconds_N, "kind": kind_N, **self.arrays}
        np.savez_compressed(path, **arrays)
        return path


def collect_motion(frames: Iterable[FrameMotion], cell: int = CELL_PIXELS, *, dense: bool = False) -> MotionSeries:
    """Collect the motion of a part of a video in memory.

    Args:
        frames: in order.
        cell: pixels of a cell of the grid.
        dense: collect the dense maps instead of the grids.

    Raises:
        InvalidRequest: there is no frame, or there are more than fit into `MAX_SERIES_BYTES` (the message says how
            many fit).
    """
    moments: list[Moment] = []
    lengths: list[npt.NDArray[np.float32]] = []
    frame_arrays: list[dict[str, npt.NDArray[Any]]] = []
    kinds, held_bytes = "", 0
    for motion in frames:
        arrays = _motion_arrays(motion, cell, dense=dense)
        held_bytes += sum(array.nbytes for array in arrays.values())
        if held_bytes > MAX_SERIES_BYTES:
            raise InvalidRequest(f"That is too much at once: at most {len(moments)} frames of this video fit.")
        moments.append(motion.moment)
        kinds += motion.kind
        lengths.append(np.hypot(*compute_displacements(motion.vectors_V).T.astype(np.float32)))
        frame_arrays.append(arrays)
    if not frame_arrays:
        raise InvalidRequest("There is no frame to read.")
    stacked = {name: np.stack([arrays[name] for arrays in frame_arrays]) for name in frame_arrays[0]}
    return MotionSeries(tuple(moments), kinds, np.concatenate(lengths), stacked)


def _motion_arrays(motion: FrameMotion, cell: int, *, dense: bool) -> dict[str, npt.NDArray[Any]]:
    height, width = motion.av_frame.height, motion.av_frame.width
    if dense:
        return {"motion": build_dense_map(motion.vectors_V, height, width).astype(np.int16)}
    cells = build_grid(motion.vectors_V, height, width, cell)
    return {"mean": cells.mean_RC2, "count": cells.count_RC}
