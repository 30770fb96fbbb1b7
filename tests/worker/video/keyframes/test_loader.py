"""Keyframes from a ZIP file: each distinct one once, cropped by the arithmetic of the published transforms."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shared.values import TimeRange
from tests.support.factories import make_shots, make_video
from worker.video.keyframes.loader import (
    CenterCrop,
    KeyframeWindow,
    keyframe_name,
    keyframe_numbers,
    load_windows,
    one_window_per_keyframe,
    one_window_per_shot,
    read_keyframes,
)
from worker.video.keyframes.store import KeyframeStore, encode_jpeg
from worker.video.transform import ImageArray


def make_image(seed: int, height: int, width: int) -> ImageArray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def spans(*bounds: tuple[int, int]) -> list[TimeRange]:
    return [row.range for row in make_shots(*bounds) if row.range]


@pytest.fixture
def zip_path(tmp_path: Path) -> Path:
    """Two shots with three frames each, as `KeyframeStore` writes them."""
    import zipfile

    path = tmp_path / "keyframes.zip"
    with zipfile.ZipFile(path, "w") as members:
        for shot in range(2):
            for image in range(3):
                members.writestr(
                    keyframe_name(shot, image), encode_jpeg(np.full((256, 340, 3), 40 * (3 * shot + image), np.uint8))
                )
    return path


@pytest.mark.parametrize(
    ("start", "end", "wanted"),
    [(0, 1, (0, 0, 0)), (0, 2, (0, 0, 1)), (0, 3, (0, 1, 2)), (10, 20, (10, 14, 19)), (5, 10, (5, 7, 9))],
)
def test_the_keyframes_are_the_first_the_middle_and_the_last(start: int, end: int, wanted: tuple[int, ...]) -> None:
    assert keyframe_numbers(start, end) == wanted


def test_a_frame_that_is_several_keyframes_is_read_once() -> None:
    assert one_window_per_keyframe(spans((0, 1), (1, 3), (3, 9))) == (
        KeyframeWindow(("shot_0000_img_0.jpg",), 0, 3),
        KeyframeWindow(("shot_0001_img_0.jpg",), 3, 5),
        KeyframeWindow(("shot_0001_img_2.jpg",), 5, 6),
        KeyframeWindow(("shot_0002_img_0.jpg",), 6, 7),
        KeyframeWindow(("shot_0002_img_1.jpg",), 7, 8),
        KeyframeWindow(("shot_0002_img_2.jpg",), 8, 9),
    )


def test_names_stay_in_order_beyond_ten_thousand() -> None:
    assert [place.names[2] for place in one_window_per_shot(10_001)[9_999:]] == [
        "shot_9999_img_2.jpg",
        "shot_10000_img_2.jpg",
    ]


def test_windows_hold_the_named_images(zip_path: Path) -> None:
    whole = list(load_windows(zip_path, one_window_per_shot(2), CenterCrop(224, "bilinear")))
    assert [window.frames_THWC.shape for window in whole] == [(3, 224, 224, 3)] * 2
    assert [window.frames_THWC[:, 0, 0, 0].tolist() for window in whole] == [[0, 40, 80], [120, 160, 200]]
    assert [(window.start, window.stop) for window in whole] == [(0, 1), (1, 2)]
    single = list(load_windows(zip_path, one_window_per_keyframe(spans((0, 9), (9, 10))), CenterCrop(256, "bicubic")))
    assert [int(window.frames_THWC[0, 0, 0, 0]) for window in single] == [0, 40, 80, 120]
    assert (single[-1].start, single[-1].stop) == (3, 6)


def test_a_missing_keyframe_is_an_error(zip_path: Path) -> None:
    with pytest.raises(KeyError):
        list(read_keyframes(zip_path, ["shot_0007_img_0.jpg"]))


def test_an_empty_store_writes_an_empty_file(tmp_path: Path) -> None:
    path = KeyframeStore(tmp_path / "none.zip", make_video(), 256).finish_file(lambda _: ())
    assert list(load_windows(path, (), CenterCrop(256, "bicubic"))) == []


@pytest.mark.parametrize(
    ("height", "width", "short", "resized", "offset"),
    [
        (240, 427, 256, (455, 256), (116, 16)),  # 115.5 goes to the even number
        (427, 240, 256, (256, 455), (16, 116)),
        (256, 341, 256, (341, 256), (58, 16)),
        (256, 256, 224, (224, 224), (0, 0)),
        (100, 300, 224, (672, 224), (224, 0)),
        (256, 455, 224, (398, 224), (87, 0)),
    ],
)
def test_the_middle_is_cut_out_after_resizing(
    height: int, width: int, short: int, resized: tuple[int, int], offset: tuple[int, int]
) -> None:
    image = make_image(height, height, width)
    left, top = offset
    for filter_, plain in (("bicubic", Image.Resampling.BICUBIC), ("bilinear", Image.Resampling.BILINEAR)):
        wanted = np.asarray(Image.fromarray(image).resize(resized, plain))[top : top + 224, left : left + 224]
        cropped = CenterCrop(short, "bicubic" if filter_ == "bicubic" else "bilinear").apply_to(image)
        assert np.array_equal(cropped, wanted)
        assert cropped.flags.writeable


@pytest.mark.parametrize(("short", "side"), [(200, 224), (224, 0)])
def test_an_impossible_crop_is_refused(short: int, side: int) -> None:
    with pytest.raises(ValueError, match="impossible crop"):
        CenterCrop(short, "bicubic", side)


def test_half_pixels_are_rounded_as_the_published_transforms_do() -> None:
    """The corner at 9.5 pixels and the long side of 227.6."""
    plain, cmd = CenterCrop(128, "bilinear", 112), CenterCrop(128, "bilinear", 112, "corner_down")
    columns = np.broadcast_to(np.arange(131, dtype=np.uint8)[None, :, None], (128, 131, 3)).copy()
    assert (plain.apply_to(columns)[0, 0, 0], cmd.apply_to(columns)[0, 0, 0]) == (10, 9)
    wide = make_image(1, 360, 640)
    for crop, long in ((plain, 227), (cmd, 228)):
        resized = np.asarray(Image.fromarray(wide).resize((long, 128), Image.Resampling.BILINEAR))
        left = 58  # 57.5 to the even number, and 58
        assert np.array_equal(crop.apply_to(wide), resized[8:120, left : left + 112])
