"""Motion vectors against videos whose motion is known, and the dense map against a loop over every pixel."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import pytest
from av.video.frame import VideoFrame
from PIL import Image

from shared.errors import InvalidRequest, UnsupportedMedia
from tests.support.sample_videos import pattern_input, run_ffmpeg
from worker.video.motion import (
    NO_VECTORS,
    MotionVectorArray,
    build_dense_map,
    build_grid,
    collect_motion,
    compute_displacements,
    read_motion,
)
from worker.video.motion_plot import ArrowSheet, direction_colour, iter_arrows, write_motion_report
from worker.video.reader import VideoReader

HEIGHT, WIDTH, FRAMES = 144, 176, 25
STEP = (6, -4)
"""Pixels by which the texture moves from frame to frame: to the right, up."""


def texture(height: int, width: int) -> npt.NDArray[np.uint8]:
    """Soft noise: encoders that look for a block step by step find it again."""
    noise = np.random.default_rng(5).integers(0, 256, (height // 12, width // 12), np.uint8)
    return np.asarray(Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC))


def moving(out: Path, codec: str, step: tuple[int, int] = STEP, **options: str) -> Path:
    """A video of a texture of which each frame shows another part."""
    across, down = step
    whole = texture(HEIGHT + abs(down) * FRAMES, WIDTH + abs(across) * FRAMES)
    with av.open(out, "w") as container:
        stream = container.add_stream(codec, 25, options={"g": "12", "bf": "0", **options})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.thread_count = 1
        for number in range(FRAMES):
            left = across * (FRAMES - number) if across > 0 else -across * number
            top = down * (FRAMES - number) if down > 0 else -down * number
            grey = whole[top : top + HEIGHT, left : left + WIDTH]
            av_frame = VideoFrame.from_ndarray(np.ascontiguousarray(grey), format="gray").reformat(format="yuv420p")
            container.mux(stream.encode(av_frame))
        container.mux(stream.encode(None))
    return out


@pytest.fixture(scope="module")
def video_paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The moving texture in both codecs."""
    folder = tmp_path_factory.mktemp("moving")
    return {
        "libx264": moving(folder / "h264.mp4", "libx264", crf="12", preset="medium", **{"x264-params": "scenecut=0"}),
        "mpeg4": moving(folder / "mpeg4.mp4", "mpeg4", qmin="2", qmax="3", b="8000000"),
    }


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_a_texture_that_moves_by_whole_pixels_gives_that_vector(video_paths: dict[str, Path], codec: str) -> None:
    motions = list(read_motion(video_paths[codec]))
    assert "".join(motion.kind for motion in motions) == ("I" + 11 * "P" + "I" + 11 * "P" + "I")
    for motion in motions:
        map_HW2 = build_dense_map(motion.vectors_V, HEIGHT, WIDTH)
        if motion.kind == "I":
            assert not len(motion.vectors_V)
            assert not map_HW2.any()
            continue
        inner_V = (np.abs(motion.vectors_V["dst_x"] - WIDTH / 2) < 70) & (
            np.abs(motion.vectors_V["dst_y"] - 72) < 50
        )  # what comes in at the edges was nowhere before
        assert (compute_displacements(motion.vectors_V)[inner_V] == STEP).all(axis=1).mean() > 0.95
        assert (map_HW2[20:-20, 20:-20] == STEP).all(axis=2).mean() > 0.95
        mean_RC2 = build_grid(motion.vectors_V, HEIGHT, WIDTH).mean_RC2
        assert np.abs(np.median(mean_RC2[1:-1, 1:-1], axis=(0, 1)) - STEP).max() < 0.01


COLUMNS = ("dst_x", "dst_y", "src_x", "src_y", "w", "h")


def loop(vectors_V: MotionVectorArray, height: int, width: int) -> npt.NDArray[np.int32]:
    """The published loader's loop: vector by vector, pixel by pixel."""
    map_HW2 = np.zeros((height, width, 2), np.int32)
    for row in vectors_V:
        dst_x, dst_y, src_x, src_y, wide, high = (int(row[name]) for name in COLUMNS)
        if (dst_x, dst_y) == (src_x, src_y):
            continue
        for down in range(-(high // 2), high // 2):
            for across in range(-(wide // 2), wide // 2):
                to = dst_y + down, dst_x + across
                at = src_y + down, src_x + across
                if all(0 <= y < height and 0 <= x < width for y, x in (to, at)):
                    map_HW2[to] = dst_x - src_x, dst_y - src_y
    return map_HW2


def vectors(*rows: tuple[int, int, int, int, int, int]) -> MotionVectorArray:
    """(dst_x, dst_y, src_x, src_y, w, h) of blocks taken from an earlier frame."""
    vectors_V = np.zeros(len(rows), NO_VECTORS.dtype)
    for name, values in zip(COLUMNS, zip(*rows, strict=True), strict=True):
        vectors_V[name] = values
    vectors_V["source"] = -1
    return vectors_V


def test_the_dense_map_is_that_of_the_loop_on_vectors_that_overlap_and_leave_the_frame() -> None:
    draw = np.random.default_rng(1)
    for _ in range(5):
        sizes = draw.choice([4, 8, 16], (40, 2))
        middles, moved = draw.integers(-10, 75, (40, 2)), draw.integers(-9, 10, (40, 2)) * draw.integers(0, 2, (40, 1))
        vectors_V = vectors(*map(tuple, np.concatenate([middles, middles - moved, sizes], axis=1).tolist()))
        wanted = loop(vectors_V, 50, 64)
        assert wanted.any()
        assert np.array_equal(build_dense_map(vectors_V, 50, 64), wanted)


def test_a_later_vector_counts_where_it_may_and_an_earlier_one_stays_where_it_may_not() -> None:
    vectors_V = vectors((8, 8, 8, 9, 16, 16), (4, 4, 9, 4, 8, 8), (8, 8, 8, 8, 16, 16))
    map_HW2 = build_dense_map(vectors_V, 16, 16)
    assert map_HW2[2, 2].tolist() == [-5, 0]
    assert map_HW2[12, 2].tolist() == [0, -1]
    assert map_HW2[15, 12].tolist() == [0, 0]  # taken from below the frame


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_the_dense_map_of_a_video_with_b_frames_is_that_of_the_loop(codec: str, tmp_path: Path) -> None:
    """With blocks of several sizes; vectors to later frames are left out."""
    moved, sizes = set(), set()
    for motion in read_motion(moving(tmp_path / "b.mp4", codec, (2, -1), bf="2", flags="+mv4")):
        assert (motion.vectors_V["source"] < 0).all()
        sizes |= set(motion.vectors_V[["w", "h"]].tolist())
        wanted = loop(motion.vectors_V, HEIGHT, WIDTH)
        assert np.array_equal(build_dense_map(motion.vectors_V, HEIGHT, WIDTH), wanted)
        moved |= {(motion.kind, bool(wanted.any()), bool(len(motion.vectors_V)))}
    # The decoder of MPEG-4 knows nothing of its B-frames; in one of H.264 all that points back may stand still.
    wanted_kinds = {("I", False, False), ("P", True, True), ("B", *([codec == "libx264"] * 2))}
    assert moved - ({("B", False, True)} if codec == "libx264" else set()) == wanted_kinds
    assert {(16, 16), (8, 8)} <= sizes


def test_the_grid_is_the_pooled_map_where_blocks_are_whole(video_paths: dict[str, Path]) -> None:
    compared = 0
    for motion in read_motion(video_paths["libx264"]):
        cells, map_HW2 = build_grid(motion.vectors_V, HEIGHT, WIDTH), build_dense_map(motion.vectors_V, HEIGHT, WIDTH)
        assert cells.count_RC.sum() == len(motion.vectors_V)
        pooled_RC2 = map_HW2.reshape(HEIGHT // 16, 16, WIDTH // 16, 16, 2).mean(axis=(1, 3))
        for row in motion.vectors_V[(motion.vectors_V["w"] == 16) & (motion.vectors_V["h"] == 16)]:
            if 8 <= row["src_x"] <= WIDTH - 8 and 8 <= row["src_y"] <= HEIGHT - 8:
                at = row["dst_y"] // 16, row["dst_x"] // 16
                assert cells.count_RC[at] == 1
                assert np.array_equal(cells.mean_RC2[at], pooled_RC2[at])
                compared += 1
    assert compared > 1000


def test_cells_of_any_size_reach_beyond_the_frame() -> None:
    vectors_V = vectors((8, 8, 4, 8, 16, 16), (20, 4, 20, 4, 8, 8), (28, 4, 20, 0, 8, 8), (40, 24, 39, 23, 16, 16))
    cells = build_grid(vectors_V, 30, 50)
    assert cells.count_RC.tolist() == [[1, 2, 0, 0], [0, 0, 1, 0]]
    assert cells.mean_RC2[0, :2].tolist() == [[4, 0], [4, 2]]
    assert build_grid(vectors_V, 30, 50, 64).mean_RC2.tolist() == [[[13 / 4, 5 / 4]]]
    assert not build_grid(NO_VECTORS, 30, 50).count_RC.any()


def test_times_are_exact_from_anywhere(get_video_path: Callable[[str], Path]) -> None:
    path = get_video_path("vfr.mp4")
    with VideoReader(path) as reader:
        times = [frame.pts for frame in reader.read_frames()]
        line = reader.timeline
    since = line.moment_at(17).seconds
    motions = list(read_motion(path, since, 5))
    assert [motion.moment for motion in motions] == [line.moment_at(frame) for frame in range(17, 22)]
    between = list(read_motion(path, since + Fraction(1, 1000), 1))
    assert between[0].moment == line.moment_at(18)
    whole = [motion.moment.pts for motion in read_motion(path)]
    assert whole == times
    with pytest.raises(InvalidRequest, match="ends before"):
        next(read_motion(path, Fraction(60)))


def test_a_part_has_the_vectors_of_the_whole(get_video_path: Callable[[str], Path]) -> None:
    """Whatever the number of threads: with a thread a frame, decoders give vectors of frames not yet finished."""
    whole = list(read_motion(get_video_path("plain.mp4"), threads=2))
    for since in (0, 1):
        for motion in read_motion(get_video_path("plain.mp4"), Fraction(since), threads=1):
            assert np.array_equal(motion.vectors_V, whole[motion.moment.frame].vectors_V)


@pytest.mark.parametrize("codec", ["libx265", "libvpx-vp9", "mpeg2video"])
def test_other_codecs_are_refused(codec: str, tmp_path: Path) -> None:
    quiet = ("-x265-params", "log-level=none") if codec == "libx265" else ()
    run_ffmpeg(*pattern_input(seconds=0.2), "-c:v", codec, *quiet, tmp_path / "video.mkv")
    with pytest.raises(UnsupportedMedia, match=r"H\.264 and MPEG-4, not from"):
        next(read_motion(tmp_path / "video.mkv"))


def test_a_video_of_one_frame_has_no_motion(get_video_path: Callable[[str], Path], tmp_path: Path) -> None:
    report = write_motion_report(get_video_path("one_frame.mp4"), tmp_path, Fraction(0), 10)
    assert report.series.compute_statistics() == {"frames": {"I": 1}, "blocks": 0, "mean": None, "p95": None}
    assert [file.name for file in report.files] == ["one_frame_motion.npz"]
    assert report.format_text().startswith("1 frames (1 I) from 00:00:00:00")


# Numbers and frame -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("whole", [False, True], ids=["grid", "dense"])
def test_report_has_arrays_and_image(video_paths: dict[str, Path], whole: bool, tmp_path: Path) -> None:
    report = write_motion_report(video_paths["libx264"], tmp_path, Fraction(1, 5), 12, dense=whole)
    assert [file.name for file in report.files] == ["h264_motion.npz", "h264_motion.png"]
    with np.load(report.files[0]) as arrays:
        assert arrays["frame"].tolist() == list(range(5, 17))
        assert np.allclose(arrays["seconds"], np.arange(5, 17) / 25)
        assert "".join(arrays["kind"]) == "PPPPPPPIPPPP"
        if whole:
            assert arrays["motion"].shape == (12, HEIGHT, WIDTH, 2)
            assert (arrays["motion"][1, 20:-20, 20:-20] == STEP).all(axis=2).mean() > 0.95
        else:
            assert arrays["mean"].shape == (12, 9, 11, 2)
            assert arrays["count"].shape == (12, 9, 11)
            assert not arrays["count"][7].any()
    facts = report.series.compute_statistics()
    assert facts["frames"] == {"I": 1, "P": 11}
    assert facts["p95"] >= facts["mean"] > 5
    assert "12 frames (1 I, 11 P) from 00:00:00:05" in report.format_text()
    with Image.open(report.files[1]) as image:
        assert image.size == (3 * WIDTH + 16, 2 * HEIGHT + 8)


def test_too_much_at_once_is_refused(video_paths: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.video.motion.MAX_SERIES_BYTES", 4 * HEIGHT * WIDTH * 3)
    with pytest.raises(InvalidRequest, match="at most 3 frames"):
        collect_motion(read_motion(video_paths["libx264"]), dense=True)


def test_an_arrow_points_in_the_direction_of_its_cell() -> None:
    cells = build_grid(vectors((24, 8, 14, 8, 16, 16)), 32, 48)
    ((tail, head, drawn),) = iter_arrows(cells, 16, scale=1)
    assert (tail, head) == ((14, 8), (24, 8))
    assert drawn == (255, 0, 0)
    down = direction_colour(np.array([0.0, 3.0]))
    assert down[1] > 250
    assert down[0] < 140
    assert down[2] < 10


def test_an_intra_frame_is_replaced_by_the_next(video_paths: dict[str, Path], tmp_path: Path) -> None:
    sheet = ArrowSheet([12])
    assert len(list(sheet.draw_selected(read_motion(video_paths["mpeg4"])))) == FRAMES
    path = sheet.save_png(tmp_path / "sheet.png")
    assert path is not None
    with Image.open(path) as image:
        assert image.size == (WIDTH, HEIGHT)
        pixels = np.asarray(image).astype(int)
    assert (pixels.max(axis=2) - pixels.min(axis=2) > 100).mean() > 0.02  # coloured arrows on a grey video
    assert ArrowSheet([99]).save_png(tmp_path / "none.png") is None
