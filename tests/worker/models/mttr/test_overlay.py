"""The overlay video and the archive of images, decoded again."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from shared.catalog import MttrParams
from shared.errors import Internal
from shared.values import OutputFile
from shared.values.tracks import QUERY_COLOURS, TrackFrame
from tests.support import sample_videos
from tests.worker.models.mttr.synthetic_outputs import FollowedThings, MovingRectangle, make_window_outputs
from worker.models.contract import ProgressCallback, RenderContext, RunContext, RunInputs, ignore_progress
from worker.models.mttr.tracks.masks import decode_rle, encode_rle
from worker.models.mttr.tracks.overlay import LEGEND_ROW_HEIGHT, clean_text, draw_legend, draw_masks, overlay_frames
from worker.models.mttr.tracks.render import render_tracks
from worker.models.mttr.tracks.writer import TrackWriter
from worker.pipeline.reading import timeline_from_packets
from worker.video.probe import probe_video
from worker.video.reader import VideoReader
from worker.video.transform import View, apply_view

Picture = npt.NDArray[np.uint8]
SQUARE: FollowedThings = {3: (MovingRectangle(2, 2, 8, 10, step=0.1), 0.9)}
NOTHING: FollowedThings = {3: (MovingRectangle(0, 0, 0, 0), 0.9)}


def seen(path: Path) -> list[Picture]:
    with VideoReader(path) as reader:
        return [apply_view(View.full_size(), frame, reader.video) for frame in reader.read_frames()]


def made(
    path: Path,
    scratch: Path,
    queries: Sequence[FollowedThings] = (SQUARE,),
    part: tuple[int, int] | None = None,
    report_progress: ProgressCallback = ignore_progress,
    **params: bool,
) -> dict[str, OutputFile]:
    """The files of a run over a video, or over a part of it, whose answers are made."""
    scratch.mkdir()
    video = probe_video(path)
    asked = MttrParams(queries=tuple(f"thing {at}" for at in range(len(queries))), **params)
    with VideoReader(path, video=video) as reader:
        count = sum(1 for _ in reader.read_frames())
        timeline = timeline_from_packets(reader) if part else reader.timeline  # as the loop has it
    first, stop = part or (0, count)
    writer = TrackWriter(asked, video, scratch)
    for piece in make_window_outputs(first, stop, [[query] for query in queries]):
        writer.write_output(piece)
    writer.close()
    context = RenderContext(RunContext(video, timeline, RunInputs(), first, stop), path, scratch)
    return {file.kind: file for file in render_tracks((), context, asked, report_progress)}


def lines(file: OutputFile) -> list[TrackFrame]:
    return [TrackFrame.from_dict(json.loads(line)) for line in file.path.read_text().splitlines()]


def mean_error(picture: Picture, wanted: Picture) -> float:
    return float(np.abs(picture.astype(int) - wanted).mean())


FILMS: dict[str, Callable[[Path], None]] = {
    "plain.mp4": sample_videos.make_plain,
    "rotated.mp4": sample_videos.make_rotated,
    "anamorphic.mp4": sample_videos.make_anamorphic,
    "vfr.mp4": sample_videos.make_vfr,
    "late.ts": sample_videos.make_late,
    "one_frame.mp4": sample_videos.make_one_frame,
}


@pytest.mark.parametrize("name", FILMS)
def test_the_overlay_is_the_video_with_masks(name: str, tmp_path: Path) -> None:
    """Under the legend every frame as shown, blended where the mask is; as many, at the same times."""
    FILMS[name](tmp_path / name)
    files = made(tmp_path / name, tmp_path / "scratch")
    whole, overlay, tracks = seen(tmp_path / name), seen(files["overlay_video"].path), lines(files["tracks"])
    assert len(overlay) == len(whole) == len(tracks)
    for padded, plain, track in zip(overlay, whole, tracks, strict=True):
        inside = decode_rle(track.mask).astype(bool)
        assert inside.shape == plain.shape[:2]
        assert 0.02 < inside.mean() < 0.2
        high, wide = plain.shape[0] + LEGEND_ROW_HEIGHT, plain.shape[1]
        assert padded.shape == (high + high % 2, wide + wide % 2, 3)  # 4:2:0 has even sizes
        picture = padded[:high, :wide]
        wanted = plain.copy()
        wanted[inside] = np.round(0.3 * plain[inside] + 0.7 * np.array(QUERY_COLOURS[0])).astype(np.uint8)
        assert mean_error(picture[LEGEND_ROW_HEIGHT:], wanted) < 6
        assert (
            mean_error(picture[LEGEND_ROW_HEIGHT:][inside], wanted[inside])
            < 12
            < mean_error(plain[inside], wanted[inside])
        )
    one, other = probe_video(tmp_path / name), probe_video(files["overlay_video"].path)
    assert (other.codec, other.pixel_format, other.rotation, other.sample_aspect_ratio) == ("h264", "yuv420p", 0, 1)
    assert abs(one.duration - other.duration) < Fraction(1, 100)
    with VideoReader(tmp_path / name) as film, VideoReader(files["overlay_video"].path) as drawn_film:
        times = [
            [(frame.pts - it.clock.start_pts) * it.clock.time_base for frame in it.read_frames()]
            for it in (film, drawn_film)
        ]
    assert times[0] == times[1]


def test_the_overlay_of_a_part_keeps_its_sound(tmp_path: Path) -> None:
    sample_videos.make_plain(tmp_path / "film.mp4")
    files = made(tmp_path / "film.mp4", tmp_path / "scratch", part=(11, 41))
    video, data = probe_video(files["overlay_video"].path), files["overlay_video"].path.read_bytes()
    assert video.frames == 30
    assert [track.codec for track in video.audio] == ["aac"]
    assert data.index(b"moov") < data.index(b"mdat")
    whole, overlay = seen(tmp_path / "film.mp4"), seen(files["overlay_video"].path)
    outside = np.s_[60:, 60:]
    for at, picture in enumerate(overlay):
        errors = [mean_error(picture[LEGEND_ROW_HEIGHT:][outside], plain[outside]) for plain in whole]
        assert int(np.argmin(errors)) == 11 + at
    assert [line.frame for line in lines(files["tracks"])] == list(range(11, 41))
    made_samples = sample_videos.run_ffmpeg(
        "-i", files["overlay_video"].path, "-f", "f32le", "-ac", "1", "-ar", "44100", "-"
    )
    sound = np.frombuffer(made_samples, np.float32)
    assert abs(len(sound) / 44100 - 1.2) < 0.05
    assert np.abs(sound[4000:48000]).max() > 0.05


def test_the_overlay_of_a_part_of_a_damaged_video_has_its_images_where_they_belong(tmp_path: Path) -> None:
    """For a frame that cannot be decoded stands the next one, as it did for the network."""
    sample_videos.run_ffmpeg(
        "-f", "lavfi", "-i", "testsrc2=s=96x64:r=25:d=4", *sample_videos.X264_OPTIONS, tmp_path / "film.mp4"
    )
    sample_videos.write_damaged(tmp_path / "film.mp4", tmp_path / "broken.mp4", 0.4, 0.6)
    with VideoReader(tmp_path / "broken.mp4") as reader:
        shown = {frame.index: apply_view(View.full_size(), frame, reader.video) for frame in reader.read_frames(1, 100)}
    assert 40 < len(shown) < 99
    files = made(tmp_path / "broken.mp4", tmp_path / "scratch", [NOTHING], part=(1, 100))
    overlay = seen(files["overlay_video"].path)
    assert len(overlay) == len(lines(files["tracks"])) == 99
    for at, picture in enumerate(overlay, 1):
        errors = {number: mean_error(picture[LEGEND_ROW_HEIGHT:], frame) for number, frame in shown.items()}
        assert errors[min(number for number in shown if number >= at)] <= min(errors.values()) + 0.5


def test_eight_queries_have_eight_colours(tmp_path: Path) -> None:
    sample_videos.make_plain(tmp_path / "film.mp4")
    queries = [{at: (MovingRectangle(4 * at, 2 * at, 3, 3), 0.9)} for at in range(8)]
    files = made(tmp_path / "film.mp4", tmp_path / "scratch", queries, part=(0, 3))
    whole, overlay = seen(tmp_path / "film.mp4"), seen(files["overlay_video"].path)
    assert overlay[0].shape[0] == whole[0].shape[0] + 8 * LEGEND_ROW_HEIGHT
    for track in lines(files["tracks"]):
        picture, plain = overlay[track.frame][8 * LEGEND_ROW_HEIGHT :], whole[track.frame]
        inside = decode_rle(track.mask).astype(bool)
        colour = (picture[inside] - 0.3 * plain[inside].astype(float)).mean(axis=0) / 0.7
        assert np.abs(colour - QUERY_COLOURS[track.query]).max() < 45, track.query
        assert int(np.argmin([np.abs(colour - other).sum() for other in QUERY_COLOURS])) == track.query


def test_without_overlay_there_is_none_and_empty_masks_draw_nothing(tmp_path: Path) -> None:
    sample_videos.make_plain(tmp_path / "film.mp4")
    assert set(made(tmp_path / "film.mp4", tmp_path / "lines", overlay=False)) == {"tracks"}
    files = made(tmp_path / "film.mp4", tmp_path / "scratch", [NOTHING], part=(0, 5))
    for picture, plain in zip(seen(files["overlay_video"].path), seen(tmp_path / "film.mp4"), strict=False):
        assert mean_error(picture[LEGEND_ROW_HEIGHT:], plain) < 5


def test_images_of_masks(tmp_path: Path) -> None:
    sample_videos.make_plain(tmp_path / "film.mp4")
    files = made(
        tmp_path / "film.mp4", tmp_path / "scratch", [SQUARE, NOTHING], part=(5, 25), overlay=False, masks=True
    )
    assert (files["masks"].name, files["masks"].media_type) == ("masks.zip", "application/zip")
    with zipfile.ZipFile(files["masks"].path) as archive:
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}
        assert set(archive.namelist()) == {f"{query}/{frame:06d}.png" for query in range(2) for frame in range(5, 25)}
        for line in lines(files["tracks"]):
            with Image.open(io.BytesIO(archive.read(f"{line.query}/{line.frame:06d}.png"))) as image:
                assert (image.mode, image.size) == ("L", (160, 120))
                assert np.array_equal(np.array(image), decode_rle(line.mask) * 255)
                assert np.array(image).any() == (line.query == 0)


def test_rendering_reports_its_progress(tmp_path: Path) -> None:
    """A run that is silent for long is taken for hung; and one that is to stop leaves no video."""
    sample_videos.make_plain(tmp_path / "film.mp4")
    progress: list[tuple[int, int]] = []
    made(
        tmp_path / "film.mp4",
        tmp_path / "scratch",
        [SQUARE] * 2,
        report_progress=lambda *at: progress.append(at),
        masks=True,
    )
    assert progress == [(done, 100) for done in (0, 16, 32, 48, 50, 66, 82, 98)]

    def stop(done: int, _of: int) -> None:
        if done:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        made(tmp_path / "film.mp4", tmp_path / "stopped", report_progress=stop)
    assert not (tmp_path / "stopped" / "overlay.mp4").exists()


# Drawing -------------------------------------------------------------------------------------------------------------


def square(query: int, top: int, left: int, side: int = 10) -> TrackFrame:
    mask = np.zeros((40, 50), np.uint8, order="F")
    mask[top : top + side, left : left + side] = 1
    return TrackFrame(query, 0, 0.5, 1, side * side, (left, top, side, side), (40, 50), encode_rle(mask)["counts"])


def test_masks_are_blended_one_after_the_other() -> None:
    plain = np.full((40, 50, 3), 100, np.uint8)
    picture = draw_masks(plain, [square(0, 5, 5), square(1, 10, 10)])
    first, second = (np.round(0.3 * 100 + 0.7 * np.array(QUERY_COLOURS[query])) for query in (0, 1))
    both = np.round(0.3 * first + 0.7 * np.array(QUERY_COLOURS[1]))
    assert np.abs(picture[6, 6] - first).max() <= 1
    assert np.abs(picture[18, 18] - second).max() <= 1
    assert np.abs(picture[12, 12] - both).max() <= 1
    assert (plain == 100).all()
    picture[5:15, 5:15] = picture[10:20, 10:20] = 100
    assert (picture == 100).all()


@pytest.mark.parametrize(
    "text",
    [
        "兔子",
        "большой кролик",
        "الأرنب الكبير",
        "🐇 rabbit",
        "a\u200bb\u0301\u202ec",
        "x" * 300,
        "\ud7ff\uffff",
        "\t \n",
    ],
    ids=["han", "cyrillic", "arabic", "emoji", "marks", "long", "odd", "blank"],
)
@pytest.mark.parametrize("width", [16, 320])
def test_any_text_can_stand_in_the_legend(text: str, width: int) -> None:
    strip = draw_legend([text, "the big rabbit"], width)
    assert strip.shape == (2 * LEGEND_ROW_HEIGHT, width, 3)
    assert strip[LEGEND_ROW_HEIGHT:].any()


def test_each_text_has_its_colour_and_stays_in_its_strip() -> None:
    strip = draw_legend(["(Äpfel, jg)"] * 8, 300)
    for query, colour in enumerate(QUERY_COLOURS):
        part = strip[LEGEND_ROW_HEIGHT * query : LEGEND_ROW_HEIGHT * (query + 1)]
        brightest = part.reshape(-1, 3)[part.reshape(-1, 3).sum(axis=1).argmax()]
        assert tuple(brightest) == colour
        rows, columns = part.any(axis=2).nonzero()
        assert 2 <= rows.min() < rows.max() <= LEGEND_ROW_HEIGHT - 3
        assert abs((columns.min() + columns.max()) / 2 - 150) <= 2


def test_accents_are_left_out_rather_than_the_letters() -> None:
    assert clean_text("  Äpfel\n  à la  crème ") == "Apfel a la creme"
    assert np.array_equal(draw_legend(["café"], 200), draw_legend(["cafe"], 200))
    assert not np.array_equal(draw_legend(["cafe"], 200), draw_legend(["care"], 200))


def test_images_and_masks_must_go_together() -> None:
    plain = np.zeros((40, 50, 3), np.uint8)
    with pytest.raises(Internal, match="more frames"):
        list(overlay_frames([plain, plain], [square(0, 5, 5)], ["thing"]))
    with pytest.raises(Internal, match="fewer frames"):
        list(overlay_frames([], [square(0, 5, 5)], ["thing"]))
