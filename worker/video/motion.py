"""How the blocks of a picture moved, as its encoder wrote it down: motion vectors, read without comparing pictures.

Two forms of them: `build_dense_map`, the map that CMD is trained with (Huang et al., arXiv:2104.00862; made there by the loader
of Wu et al., arXiv:1712.00636), and `build_grid`, the mean in each cell of 16 pixels. Both count whole pixels of the picture
as it is stored, x to the right and y downwards, from where a block was in an earlier picture to where it is now.
Vectors of B-frames that point to a later picture are left out. I-frames have none, nor have B-frames of MPEG-4: its
decoder does not keep them and tells zeros.
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
"""Codecs whose decoder tells motion vectors. HEVC, VP9 and AV1 have them too, but FFmpeg does not hand them out."""

CELL_PIXELS = 16
"""Pixels of a macroblock, the largest block of both codecs."""

MAX_SERIES_BYTES = 2**30
"""Numbers that `collect_motion` may hold."""

MotionVectorArray = npt.NDArray[np.void]
"""Rows of FFmpeg's `AVMotionVector`, in the order of the stream: `w`, `h` of the block, its middle `dst_x`, `dst_y`,
the middle `src_x`, `src_y` of where it was taken from, and `source`, which is positive for a later picture."""

FrameKind = Literal["I", "P", "B", "?"]
FRAME_KINDS: Mapping[int, FrameKind] = {PictureType.I: "I", PictureType.P: "P", PictureType.B: "B"}


@dataclass(frozen=True, slots=True, eq=False)
class FrameMotion:
    """The motion of one frame.

    Args:
        moment: its number and exact time.
        kind: how it was coded: `I` by itself, `P` from earlier pictures, `B` from later ones too.
        av_frame: as decoded.
        vectors_V: those that point back; empty for an I-frame, and a B-frame of MPEG-4.
    """

    moment: Moment
    kind: FrameKind
    av_frame: VideoFrame
    vectors_V: MotionVectorArray


@dataclass(frozen=True, slots=True, eq=False)
class MotionGrid:
    """Motion by cells; R rows and C columns of them.

    Args:
        mean_RC2: mean (x, y) of the vectors of blocks whose middle lies in the cell; 0 where there is none.
        count_RC: how many those are; 0 where nothing moved here from another picture (I-frames, intra blocks).
    """

    mean_RC2: npt.NDArray[np.float32]
    count_RC: npt.NDArray[np.int32]


def read_motion(
    path: Path, start_s: Fraction = Fraction(0), max_frames: int | None = None, threads: int = 0
) -> Iterator[FrameMotion]:
    """The motion of frame after frame.

    Args:
        path: a film in H.264 or MPEG-4 part 2.
        start_s: seconds; the first frame is the one shown then, or the next.
        max_frames: how many at most; None for all.
        threads: of the decoder; 0 for one a core.

    Raises:
        UnsupportedMedia: another codec, or no film. InvalidRequest: the film ends before `start_s`.
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
        raise InvalidRequest(f"The film ends before {float(start_s):g} s.")
    return first


def _extract_motion(frame: Frame, reader: VideoReader) -> FrameMotion:
    av_frame = frame.av_frame
    # A mapping by name, whatever the types of PyAV say.
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
"""What an I-frame has."""


def compute_displacements(vectors_V: MotionVectorArray) -> npt.NDArray[np.int32]:
    """(V, 2): the (x, y) by which each block moved, from where it was taken to where it is."""
    pairs = (("dst_x", "src_x"), ("dst_y", "src_y"))
    return np.stack([vectors_V[target].astype(np.int32) - vectors_V[origin] for target, origin in pairs], axis=1)


def build_grid(vectors_V: MotionVectorArray, height: int, width: int, cell: int = CELL_PIXELS) -> MotionGrid:
    """The mean vector of each cell, and how many it has.

    Args:
        vectors_V: of one frame; those that stand still count too.
        height, width: of the picture.
        cell: pixels; the last row and column of cells may reach beyond the picture.
    """
    rows, columns = -(-height // cell), -(-width // cell)
    row_V, column_V = vectors_V["dst_y"] // cell, vectors_V["dst_x"] // cell
    inside_V = (row_V >= 0) & (row_V < rows) & (column_V >= 0) & (column_V < columns)
    place_V = (row_V[inside_V].astype(np.intp) * columns) + column_V[inside_V]
    count_P = np.bincount(place_V, minlength=rows * columns)
    displacements_2V = compute_displacements(vectors_V)[inside_V].T
    sums_2P = np.stack([np.bincount(place_V, displacement_V, rows * columns) for displacement_V in displacements_2V])
    mean_P2 = (sums_2P / np.maximum(count_P, 1)).T.astype(np.float32)
    return MotionGrid(mean_P2.reshape(rows, columns, 2), count_P.reshape(rows, columns).astype(np.int32))


def build_dense_map(vectors_V: MotionVectorArray, height: int, width: int) -> npt.NDArray[np.int32]:
    """The published map: for every pixel the (x, y) by which its block moved; 0 where nothing says so.

    A block that moved writes its vector on each of its pixels that lies inside the picture and was taken from inside
    it. Where blocks overlap, the later one counts. Vectors are not added up over frames.

    Args:
        vectors_V: of one frame, in the order of the stream, none that points to a later picture.
        height, width: of the picture.

    Returns:
        (height, width, 2).
    """
    displacements_V2 = compute_displacements(vectors_V)
    moved_V = displacements_V2.any(axis=1)
    vectors_V, displacements_V2 = vectors_V[moved_V], displacements_V2[moved_V]
    last_HW = np.full((height, width), -1, np.int32)
    for block_height, block_width in np.unique(np.stack([vectors_V["h"], vectors_V["w"]], axis=1), axis=0).tolist():
        number_B = np.flatnonzero((vectors_V["h"] == block_height) & (vectors_V["w"] == block_width))
        row_Bh = _covered_lines(vectors_V["dst_y"][number_B], displacements_V2[number_B, 1], block_height, height)
        column_Bw = _covered_lines(vectors_V["dst_x"][number_B], displacements_V2[number_B, 0], block_width, width)
        _write_blocks(last_HW, number_B, row_Bh, column_Bw)
    return np.concatenate([displacements_V2, np.zeros((1, 2), np.int32)])[last_HW]


def _covered_lines(
    middle_B: npt.NDArray[Any], displacement_B: npt.NDArray[Any], length: int, limit: int
) -> npt.NDArray[np.intp]:
    """Rows (or columns) of each block, (B, length); -1 for one that is not in the picture, or was not before."""
    line_BL = middle_B[:, None].astype(np.intp) + np.arange(-(length // 2), length // 2)
    before_BL = line_BL - displacement_B[:, None]
    return np.where((line_BL >= 0) & (line_BL < limit) & (before_BL >= 0) & (before_BL < limit), line_BL, -1)


def _write_blocks(
    last_HW: npt.NDArray[np.int32],
    number_B: npt.NDArray[np.intp],
    row_Bh: npt.NDArray[np.intp],
    column_Bw: npt.NDArray[np.intp],
) -> None:
    """The largest number of a block on each pixel: where an index stands twice, numpy keeps the value assigned last."""
    height, width = last_HW.shape
    place_Bhw = row_Bh[:, :, None] * width + column_Bw[:, None, :]
    place_Bhw[(row_Bh[:, :, None] < 0) | (column_Bw[:, None, :] < 0)] = height * width  # beside the picture
    written = np.full(height * width + 1, -1, np.int32)
    written[place_Bhw] = number_B[:, None, None]
    np.maximum(last_HW, written[:-1].reshape(height, width), out=last_HW)


# A part of a film -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class MotionSeries:
    """The motion of N frames, held as numbers.

    Args:
        moments: number and exact time of each frame.
        kinds: a letter for each.
        lengths_V: how far each block moved, pixels; of all frames, those that stand still included.
        arrays: with `N` leading: `mean` and `count` of the grids, or `motion`, the dense maps.
    """

    moments: tuple[Moment, ...]
    kinds: str
    lengths_V: npt.NDArray[np.float32]
    arrays: Mapping[str, npt.NDArray[Any]]

    def compute_statistics(self) -> dict[str, Any]:
        """Frames by kind, blocks, and the mean and 95th percentile of how far they moved (None without blocks)."""
        has_blocks = len(self.lengths_V) > 0
        return {
            "frames": {kind: self.kinds.count(kind) for kind in sorted(set(self.kinds))},
            "blocks": len(self.lengths_V),
            "mean": float(self.lengths_V.mean(dtype=np.float64)) if has_blocks else None,
            "p95": float(np.percentile(self.lengths_V, 95)) if has_blocks else None,
        }

    def save_npz(self, path: Path) -> Path:
        """All of it but the lengths as NPZ: `frame`, `pts`, `seconds`, `kind` and the arrays."""
        frame_N, pts_N = (
            np.array([getattr(moment, name) for moment in self.moments], np.int64) for name in ("frame", "pts")
        )
        seconds_N = np.array([float(moment.seconds) for moment in self.moments])
        kind_N = np.array(list(self.kinds), "U1")
        arrays: dict[str, Any] = {"frame": frame_N, "pts": pts_N, "seconds": seconds_N, "kind": kind_N, **self.arrays}
        np.savez_compressed(path, **arrays)
        return path


def collect_motion(frames: Iterable[FrameMotion], cell: int = CELL_PIXELS, *, dense: bool = False) -> MotionSeries:
    """Read a part of a film and keep its numbers.

    Args:
        frames: frame after frame.
        cell: of the grid.
        dense: keep the dense maps in place of the grids.

    Raises:
        InvalidRequest: more frames than fit into `MAX_SERIES_BYTES`, and how many do; or none.
    """
    moments: list[Moment] = []
    lengths: list[npt.NDArray[np.float32]] = []
    frame_arrays: list[dict[str, npt.NDArray[Any]]] = []
    kinds, held_bytes = "", 0
    for motion in frames:
        arrays = _motion_arrays(motion, cell, dense=dense)
        held_bytes += sum(array.nbytes for array in arrays.values())
        if held_bytes > MAX_SERIES_BYTES:
            raise InvalidRequest(f"That is too much at once: at most {len(moments)} frames of this film fit.")
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
