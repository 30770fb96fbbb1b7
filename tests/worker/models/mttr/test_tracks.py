"""Masks at the size of the video, the instance that is followed, and the lines that are written."""

from __future__ import annotations

import json
import tracemalloc
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch.nn import functional

from shared.catalog import MttrParams
from shared.values import Timeline, VideoFacts
from tests.support.factories import make_video
from tests.support.seeded_weights import GOLDEN
from tests.worker.models.mttr.synthetic_outputs import FollowedThings, MovingRectangle, make_answer, make_window_outputs
from worker.models.contract import WindowOutput
from worker.models.mttr.tracks.linking import binary_masks, choose_instance, mask_iou
from worker.models.mttr.tracks.masks import (
    MaskSizes,
    bounding_box,
    coco_predictions,
    decode_rle,
    encode_rle,
    mask_area,
    nearest_indices,
    trajectory_scores,
    upscale_mask,
)
from worker.models.mttr.tracks.summary import Track, build_tracks
from worker.models.mttr.tracks.window_prediction import WindowPrediction
from worker.models.mttr.tracks.writer import (
    UNTIMED_FILE,
    TrackWriter,
    WindowTracks,
    read_track_frames,
    write_timed_tracks,
)

LEFT, RIGHT = MovingRectangle(2, 2, 8, 10, step=0.1), MovingRectangle(20, 8, 8, 10)
NOTHING = MovingRectangle(0, 0, 0, 0)


def softmax(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Of the first of two classes."""
    return torch.from_numpy(logits).softmax(-1)[..., 0].numpy()


# Masks ---------------------------------------------------------------------------------------------------------------


def test_masks_are_the_published_ones_in_the_first_frame() -> None:
    """The other frames need the network, and are compared in `test_post.py`."""
    single, post = np.load(GOLDEN / "mttr_single.npz"), np.load(GOLDEN / "mttr_post.npz")
    referred_TN = softmax(single["pred_is_referred"][:, 0])
    scores_N = trajectory_scores(referred_TN)
    assert np.abs(scores_N - post["trajectory_scores"][0]).max() <= 1e-6
    assert scores_N.argmax() == post["chosen"][0] == 6
    wanted = np.unpackbits(post["masks"])[: np.prod(post["masks_shape"])].reshape(post["masks_shape"])
    assert np.array_equal(upscale_mask(single["mask_t0_q6"], MaskSizes((96, 160), (90, 150), (180, 300))), wanted[0, 0])


def test_predictions_are_the_published_ones() -> None:
    """All instances of a frame, as A2D-Sentences is evaluated: two frames of two padded videos."""
    batch, post = np.load(GOLDEN / "mttr_batch.npz"), np.load(GOLDEN / "mttr_post.npz")
    referred_TBN = softmax(batch["pred_is_referred"])
    seen, shown = ((96, 128), (64, 112)), ((106, 134), (74, 118))
    for frame, film in np.ndindex(2, 2):
        sizes = MaskSizes((96, 128), seen[film], shown[film])
        found = coco_predictions(film, referred_TBN[frame, film, ::5], batch["pred_masks"][frame, film], sizes)
        row = 2 * frame + film
        assert np.abs([each["score"] for each in found] - post["a2d_scores"][row, ::5]).max() <= 1e-6
        assert [mask_area(each["segmentation"]) for each in found] == post["a2d_area"][row, ::5].tolist()
        assert {(each["image_id"], each["category_id"]) for each in found} == {(film, 1)}


@pytest.mark.parametrize(
    "sizes",
    [
        MaskSizes((96, 160), (90, 150), (180, 300)),
        MaskSizes((115, 640), (115, 640), (360, 2000)),
        MaskSizes((360, 639), (360, 639), (361, 641)),
        MaskSizes((96, 96), (96, 96), (33, 47)),
        MaskSizes((96, 96), (96, 96), (96, 96)),
    ],
    ids=lambda sizes: "x".join(map(str, sizes.video)),
)
def test_a_mask_is_what_torch_makes_of_it(sizes: MaskSizes) -> None:
    high, wide = (-(-length // 4) for length in sizes.padded)
    logits = torch.randn(1, 1, high, wide, generator=torch.Generator().manual_seed(high))
    grown = functional.interpolate(logits, sizes.padded, mode="bilinear", align_corners=False)
    cropped = (grown.sigmoid() > 0.5)[..., : sizes.unpadded[0], : sizes.unpadded[1]]
    wanted = functional.interpolate(cropped.float(), sizes.video, mode="nearest")[0, 0].numpy()
    made = upscale_mask(logits[0, 0].numpy(), sizes)
    assert made.dtype == np.uint8
    assert np.array_equal(made, wanted)


@pytest.mark.parametrize("given_length", [1, 90, 115, 360, 639])
def test_the_nearest_pixel_is_torchs(given_length: int) -> None:
    row = torch.arange(given_length, dtype=torch.float32)[None, None]
    for wanted in (1, 47, 180, 300, 719, 720, 1080, 1919, 2160):
        taken = functional.interpolate(row, wanted, mode="nearest")[0, 0].long().numpy()
        assert np.array_equal(nearest_indices(given_length, wanted), taken), wanted


@pytest.mark.parametrize("size", [(1, 1), (7, 5), (33, 47)])
@pytest.mark.parametrize("part", [0.0, 0.3, 1.0], ids=["empty", "some", "full"])
def test_run_lengths_give_the_mask_back(size: tuple[int, int], part: float) -> None:
    made = np.asfortranarray((np.random.default_rng(3).random(size) < part).astype(np.uint8))
    rle = json.loads(json.dumps(encode_rle(made)))
    assert rle["size"] == list(size)
    assert np.array_equal(decode_rle(rle), made)
    assert mask_area(rle) == made.sum()
    rows, columns = made.nonzero()
    around = None
    if len(rows):
        left, top = int(columns.min()), int(rows.min())
        around = (left, top, int(columns.max()) - left + 1, int(rows.max()) - top + 1)
    assert bounding_box(rle) == around


# Choosing ------------------------------------------------------------------------------------------------------------

BEFORE: FollowedThings = {3: (LEFT, 0.9), 4: (RIGHT, 0.5)}
JUMPS: FollowedThings = {7: (RIGHT, 0.8), 9: (LEFT, 0.6)}
"""The thing that was followed is another instance now, and no longer the best."""


def followed(of: MovingRectangle, frames: range) -> npt.NDArray[np.bool_]:
    return binary_masks(make_answer(frames, {0: (of, 1.0)}, 96, 128), 0, 0, len(frames))


@pytest.mark.parametrize(
    ("link", "instance", "switched"), [(False, 7, True), (True, 9, False)], ids=["published", "linked"]
)
def test_linking_keeps_what_was_followed(link: bool, instance: int, switched: bool) -> None:
    choice = choose_instance(make_answer(range(18, 42), JUMPS, 96, 128), followed(LEFT, range(18, 24)), link)
    assert (choice.instance, choice.switched) == (instance, switched)


def test_of_several_that_continue_the_best_is_taken() -> None:
    nearly = MovingRectangle(3, 2, 8, 10, step=0.1)
    now: FollowedThings = {1: (RIGHT, 0.9), 2: (LEFT, 0.3), 5: (nearly, 0.6)}
    choice = choose_instance(make_answer(range(18, 42), now, 96, 128), followed(LEFT, range(18, 24)), link=True)
    assert (choice.instance, choice.switched) == (5, False)


@pytest.mark.parametrize("link", [False, True])
def test_where_nothing_continues_the_best_is_taken_and_said(link: bool) -> None:
    now: FollowedThings = {7: (RIGHT, 0.8), 9: (NOTHING, 0.6)}
    choice = choose_instance(make_answer(range(18, 42), now, 96, 128), followed(LEFT, range(18, 24)), link)
    assert (choice.instance, choice.switched) == (7, True)


@pytest.mark.parametrize("link", [False, True])
def test_nothing_after_nothing_is_no_switch(link: bool) -> None:
    later = MovingRectangle(2, 2, 8, 10, frames=range(30, 99))
    window = make_answer(range(18, 42), {7: (later, 0.8), 9: (RIGHT, 0.6)}, 96, 128)
    assert choose_instance(window, followed(NOTHING, range(18, 24)), link).instance == 7
    assert not choose_instance(window, followed(NOTHING, range(18, 24)), link).switched
    assert choose_instance(window, followed(LEFT, range(18, 24)), link=False).switched


def test_overlap_counts_all_shared_frames_together() -> None:
    window = make_answer(range(18, 24), {0: (MovingRectangle(0, 0, 4, 4), 1.0)}, 96, 128)
    half = np.zeros((6, 24, 32), bool)
    half[:3, :4, :4] = True
    assert mask_iou(window, 0, half) == 0.5
    assert mask_iou(window, 1, np.zeros_like(half)) is None


# The writer ----------------------------------------------------------------------------------------------------------


def written(
    folder: Path,
    made: Sequence[WindowOutput[tuple[WindowPrediction, ...]]],
    film: VideoFacts,
    queries: int = 1,
    *,
    link: bool = False,
) -> tuple[list[WindowOutput[WindowTracks]], list[dict[str, Any]]]:
    """What the writer keeps in memory, and its lines with their times."""
    folder.mkdir(exist_ok=True)
    params = MttrParams(queries=tuple(f"thing {number}" for number in range(queries)), link=link)
    tracker = TrackWriter(params, film, folder)
    kept = [tracker.write_output(piece) for piece in made]
    tracker.close()
    timeline = Timeline(film.clock, array("q", range(0, 512 * 500, 512)), 512 * 500)
    lines = write_timed_tracks(folder, timeline, folder / "tracks.jsonl").read_text().splitlines()
    return kept, [json.loads(line) for line in lines]


def facts(width: int = 320, height: int = 240) -> VideoFacts:
    return make_video(width=width, height=height)


def test_a_line_for_each_frame_and_query_in_order(tmp_path: Path) -> None:
    made = make_window_outputs(0, 45, [[{3: (LEFT, 0.9)}], [{4: (RIGHT, 0.25)}]])
    _, lines = written(tmp_path, made, facts(), 2)
    assert [(line["frame"], line["query"]) for line in lines] == [
        (frame, query) for frame in range(45) for query in (0, 1)
    ]
    assert list(lines[0]) == [
        "query", "frame", "seconds", "pts", "timecode", "score", "instance", "area", "box", "mask",
    ]  # fmt: skip
    assert {(line["query"], line["instance"], line["score"]) for line in lines} == {(0, 3, 0.9), (1, 4, 0.25)}
    film = facts()
    for line in lines:
        assert line["pts"] == 512 * line["frame"]
        assert line["seconds"] == round(float((line["pts"] - film.clock.start_pts) * film.clock.time_base), 6)
        made_mask = decode_rle(line["mask"])
        assert made_mask.shape == (240, 320)
        assert (line["area"], tuple(line["box"])) == (made_mask.sum(), bounding_box(line["mask"]))


def test_lines_hold_the_masks(tmp_path: Path) -> None:
    """The video is 2.5 times the size of what the network saw; a rectangle stays one, to a pixel of the network."""
    _, lines = written(tmp_path, make_window_outputs(0, 20, [[{3: (LEFT, 0.9)}]]), facts())
    for line in lines:
        left, top, wide, high = line["box"]
        x = round(LEFT.x + LEFT.step * line["frame"])
        assert max(abs(left - 10 * x), abs(top - 20), abs(wide - 80), abs(high - 100)) <= 5
        assert decode_rle(line["mask"])[top : top + high, left : left + wide].mean() > 0.99


def test_later_windows_have_the_last_word(tmp_path: Path) -> None:
    """Frames 18 to 23 are in both windows: the second answers for them."""
    made = make_window_outputs(0, 30, [[BEFORE, JUMPS]])
    assert [(piece.start, piece.stop, len(piece.value[0].referred_TN)) for piece in made] == [(0, 18, 24), (18, 30, 12)]
    for link, instance in ((False, 7), (True, 9)):
        kept, lines = written(tmp_path / str(link), made, facts(), link=link)
        assert [line["instance"] for line in lines] == [3] * 18 + [instance] * 12
        assert build_tracks(kept)[0].switches == (() if link else (18,))
        assert (lines[18]["box"][0] > 150) is not link


def test_linking_goes_on_through_the_video(tmp_path: Path) -> None:
    now: list[FollowedThings] = [
        BEFORE,
        JUMPS,
        {1: (RIGHT, 0.7), 2: (LEFT, 0.2)},
        {40: (RIGHT, 0.9), 41: (NOTHING, 0.5)},
    ]
    (track,) = build_tracks(written(tmp_path / "linked", make_window_outputs(0, 72, [now]), facts(), link=True)[0])
    assert track.switches == (54,)
    (track,) = build_tracks(written(tmp_path / "alone", make_window_outputs(0, 72, [now]), facts())[0])
    assert track.switches == (18,)


def test_a_last_window_of_one_frame(tmp_path: Path) -> None:
    made = make_window_outputs(0, 19, [[BEFORE, JUMPS]])
    assert [(piece.start, piece.stop) for piece in made] == [(0, 18), (18, 19)]
    kept, lines = written(tmp_path, made, facts(), link=True)
    assert lines[-1]["instance"] == 9
    assert build_tracks(kept)[0].windows == 2


def test_a_query_that_finds_nothing(tmp_path: Path) -> None:
    kept, lines = written(tmp_path, make_window_outputs(0, 40, [[{3: (NOTHING, 0.3)}]]), facts())
    assert {(line["area"], line["box"]) for line in lines} == {(0, None)}
    assert not any(decode_rle(line["mask"]).any() for line in lines)
    assert build_tracks(kept) == (Track(pytest.approx(0.3), 0, None, (), 3),)
    assert build_tracks([]) == ()


def test_a_track_is_summed_up(tmp_path: Path) -> None:
    seldom = MovingRectangle(2, 2, 8, 10, frames=range(10, 30))
    kept, lines = written(tmp_path, make_window_outputs(0, 45, [[{3: (seldom, 0.9)}, {5: (seldom, 0.6)}]]), facts())
    (track,) = build_tracks(kept)
    assert track.score == pytest.approx((18 * 0.9 + 27 * 0.6) / 45)
    assert track.frames_visible == sum(line["area"] > 0 for line in lines) == 20
    assert track.mean_area == pytest.approx(sum(line["area"] for line in lines) / 20, abs=0.05)
    assert (track.switches, track.windows) == ((), 3)


def test_a_range_keeps_the_numbers_of_the_video(tmp_path: Path) -> None:
    _, lines = written(tmp_path, make_window_outputs(100, 130, [[{3: (LEFT, 0.9)}]]), facts())
    assert [line["frame"] for line in lines] == list(range(100, 130))
    assert lines[0]["seconds"] == round(float(100 * 512 * facts().clock.time_base), 6)


@pytest.mark.parametrize("size", [(321, 241), (17, 33), (128, 96)])
def test_odd_sizes(size: tuple[int, int], tmp_path: Path) -> None:
    _, lines = written(tmp_path, make_window_outputs(0, 3, [[{3: (LEFT, 0.9)}]], height=99, width=130), facts(*size))
    assert {tuple(line["mask"]["size"]) for line in lines} == {size[::-1]}
    assert {decode_rle(line["mask"]).shape for line in lines} == {size[::-1]}


def test_memory_is_flat(tmp_path: Path) -> None:
    """200 windows: what stays is numbers a frame, while the masks lie in the file."""
    params = MttrParams(queries=("left", "right"), link=True)
    tracker = TrackWriter(params, facts(640, 480), tmp_path)
    window = tuple(make_answer(range(24), now, 192, 256) for now in (BEFORE, JUMPS))
    kept = [tracker.write_output(WindowOutput(18 * at, 18 * at + 18, window)) for at in range(10)]
    tracemalloc.start()
    kept += [tracker.write_output(WindowOutput(18 * at, 18 * at + 18, window)) for at in range(10, 200)]
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    tracker.close()
    assert sum(1 for _ in read_track_frames(tmp_path / UNTIMED_FILE)) == 200 * 18 * 2
    assert held < 200 * 2500
    assert peak < held + 8 * 2**20


def test_the_time_of_another_frame_is_refused(tmp_path: Path) -> None:
    written(tmp_path, make_window_outputs(0, 3, [[{3: (LEFT, 0.9)}]]), facts())
    first = next(read_track_frames(tmp_path / UNTIMED_FILE))
    with pytest.raises(ValueError, match="frame 1 for frame 0"):
        first.to_timed_dict(facts().clock.moment_at(1, 512))
