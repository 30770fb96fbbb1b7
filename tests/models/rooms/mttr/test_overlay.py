"""The overlay film and the archive of pictures, decoded again."""

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
from shared.values import FileMade
from shared.values.tracks import COLOURS, TrackFrame
from tests.models.rooms.mttr.answers import Followed, Thing, pieces
from tests.worker.video import films
from worker.models.contract import Film, Inputs, Told, untold
from worker.models.mttr.tracks.files import files
from worker.models.mttr.tracks.masks import decoded, encoded
from worker.models.mttr.tracks.overlay import STRIP, drawn, legend, overlaid, printable
from worker.models.mttr.tracks.writer import Tracker
from worker.pipeline.material import packet_times
from worker.video.probe import probe
from worker.video.reader import Reader
from worker.video.transform import View, see

Picture = npt.NDArray[np.uint8]
SQUARE: Followed = {3: (Thing(2, 2, 8, 10, step=0.1), 0.9)}
NOTHING: Followed = {3: (Thing(0, 0, 0, 0), 0.9)}


def seen(path: Path) -> list[Picture]:
    with Reader(path) as reader:
        return [see(View.full(), frame, reader.video) for frame in reader.frames()]


def made(
    path: Path,
    scratch: Path,
    queries: Sequence[Followed] = (SQUARE,),
    part: tuple[int, int] | None = None,
    told: Told = untold,
    **params: bool,
) -> dict[str, FileMade]:
    """The files of a run over a film, or over a part of it, whose answers are made."""
    scratch.mkdir()
    video = probe(path)
    asked = MttrParams(queries=tuple(f"thing {at}" for at in range(len(queries))), **params)
    with Reader(path, video=video) as reader:
        count = sum(1 for _ in reader.frames())
        timeline = packet_times(reader) if part else reader.timeline  # as the loop has it
    first, stop = part or (0, count)
    writer = Tracker(asked, video, scratch)
    for piece in pieces(first, stop, [[query] for query in queries]):
        writer.feed(piece)
    writer.close()
    film = Film(path, video, timeline, None, scratch, Inputs(), first, stop, told)
    return {file.kind: file for file in files(film, asked)}


def lines(file: FileMade) -> list[TrackFrame]:
    return [TrackFrame.read(json.loads(line)) for line in file.path.read_text().splitlines()]


def mean_error(picture: Picture, wanted: Picture) -> float:
    return float(np.abs(picture.astype(int) - wanted).mean())


FILMS: dict[str, Callable[[Path], None]] = {
    "plain.mp4": films.plain,
    "rotated.mp4": films.rotated,
    "anamorphic.mp4": films.anamorphic,
    "vfr.mp4": films.vfr,
    "late.ts": films.late,
    "one_frame.mp4": films.one_frame,
}


@pytest.mark.parametrize("name", FILMS)
def test_the_overlay_is_the_film_with_masks(name: str, tmp_path: Path) -> None:
    """Under the legend every frame as shown, blended where the mask is; as many, at the same times."""
    FILMS[name](tmp_path / name)
    files = made(tmp_path / name, tmp_path / "scratch")
    whole, overlay, tracks = seen(tmp_path / name), seen(files["overlay_film"].path), lines(files["tracks"])
    assert len(overlay) == len(whole) == len(tracks)
    for padded, plain, track in zip(overlay, whole, tracks, strict=True):
        inside = decoded(track.mask).astype(bool)
        assert inside.shape == plain.shape[:2]
        assert 0.02 < inside.mean() < 0.2
        high, wide = plain.shape[0] + STRIP, plain.shape[1]
        assert padded.shape == (high + high % 2, wide + wide % 2, 3)  # 4:2:0 has even sizes
        picture = padded[:high, :wide]
        wanted = plain.copy()
        wanted[inside] = np.round(0.3 * plain[inside] + 0.7 * np.array(COLOURS[0])).astype(np.uint8)
        assert mean_error(picture[STRIP:], wanted) < 6
        assert mean_error(picture[STRIP:][inside], wanted[inside]) < 12 < mean_error(plain[inside], wanted[inside])
    one, other = probe(tmp_path / name), probe(files["overlay_film"].path)
    assert (other.codec, other.pixel_format, other.rotation, other.sample_aspect_ratio) == ("h264", "yuv420p", 0, 1)
    assert abs(one.duration - other.duration) < Fraction(1, 100)
    with Reader(tmp_path / name) as film, Reader(files["overlay_film"].path) as drawn_film:
        times = [
            [(frame.pts - it.clock.start_pts) * it.clock.time_base for frame in it.frames()]
            for it in (film, drawn_film)
        ]
    assert times[0] == times[1]


def test_the_overlay_of_a_part_keeps_its_sound(tmp_path: Path) -> None:
    films.plain(tmp_path / "film.mp4")
    files = made(tmp_path / "film.mp4", tmp_path / "scratch", part=(11, 41))
    video, data = probe(files["overlay_film"].path), files["overlay_film"].path.read_bytes()
    assert video.frames == 30
    assert [track.codec for track in video.audio] == ["aac"]
    assert data.index(b"moov") < data.index(b"mdat")
    whole, overlay = seen(tmp_path / "film.mp4"), seen(files["overlay_film"].path)
    outside = np.s_[60:, 60:]
    for at, picture in enumerate(overlay):
        errors = [mean_error(picture[STRIP:][outside], plain[outside]) for plain in whole]
        assert int(np.argmin(errors)) == 11 + at
    assert [line.frame for line in lines(files["tracks"])] == list(range(11, 41))
    made_samples = films.ffmpeg("-i", files["overlay_film"].path, "-f", "f32le", "-ac", "1", "-ar", "44100", "-")
    sound = np.frombuffer(made_samples, np.float32)
    assert abs(len(sound) / 44100 - 1.2) < 0.05
    assert np.abs(sound[4000:48000]).max() > 0.05


def test_the_overlay_of_a_part_of_a_damaged_film_has_its_pictures_where_they_belong(tmp_path: Path) -> None:
    """For a frame that cannot be decoded stands the next one, as it did for the network."""
    films.ffmpeg("-f", "lavfi", "-i", "testsrc2=s=96x64:r=25:d=4", *films.X264, tmp_path / "film.mp4")
    films.damage(tmp_path / "film.mp4", tmp_path / "broken.mp4", 0.4, 0.6)
    with Reader(tmp_path / "broken.mp4") as reader:
        shown = {frame.index: see(View.full(), frame, reader.video) for frame in reader.frames(1, 100)}
    assert 40 < len(shown) < 99
    files = made(tmp_path / "broken.mp4", tmp_path / "scratch", [NOTHING], part=(1, 100))
    overlay = seen(files["overlay_film"].path)
    assert len(overlay) == len(lines(files["tracks"])) == 99
    for at, picture in enumerate(overlay, 1):
        errors = {number: mean_error(picture[STRIP:], frame) for number, frame in shown.items()}
        assert errors[min(number for number in shown if number >= at)] <= min(errors.values()) + 0.5


def test_eight_queries_have_eight_colours(tmp_path: Path) -> None:
    films.plain(tmp_path / "film.mp4")
    queries = [{at: (Thing(4 * at, 2 * at, 3, 3), 0.9)} for at in range(8)]
    files = made(tmp_path / "film.mp4", tmp_path / "scratch", queries, part=(0, 3))
    whole, overlay = seen(tmp_path / "film.mp4"), seen(files["overlay_film"].path)
    assert overlay[0].shape[0] == whole[0].shape[0] + 8 * STRIP
    for track in lines(files["tracks"]):
        picture, plain = overlay[track.frame][8 * STRIP :], whole[track.frame]
        inside = decoded(track.mask).astype(bool)
        colour = (picture[inside] - 0.3 * plain[inside].astype(float)).mean(axis=0) / 0.7
        assert np.abs(colour - COLOURS[track.query]).max() < 45, track.query
        assert int(np.argmin([np.abs(colour - other).sum() for other in COLOURS])) == track.query


def test_without_overlay_there_is_none_and_empty_masks_draw_nothing(tmp_path: Path) -> None:
    films.plain(tmp_path / "film.mp4")
    assert set(made(tmp_path / "film.mp4", tmp_path / "lines", overlay=False)) == {"tracks"}
    files = made(tmp_path / "film.mp4", tmp_path / "scratch", [NOTHING], part=(0, 5))
    for picture, plain in zip(seen(files["overlay_film"].path), seen(tmp_path / "film.mp4"), strict=False):
        assert mean_error(picture[STRIP:], plain) < 5


def test_pictures_of_masks(tmp_path: Path) -> None:
    films.plain(tmp_path / "film.mp4")
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
                assert np.array_equal(np.array(image), decoded(line.mask) * 255)
                assert np.array(image).any() == (line.query == 0)


def test_it_is_told_how_far_the_work_is(tmp_path: Path) -> None:
    """A run that is silent for long is taken for hung; and one that is to stop leaves no film."""
    films.plain(tmp_path / "film.mp4")
    said: list[tuple[int, int]] = []
    made(tmp_path / "film.mp4", tmp_path / "scratch", [SQUARE] * 2, told=lambda *at: said.append(at), masks=True)
    assert said == [(done, 100) for done in (0, 16, 32, 48, 50, 66, 82, 98)]

    def stop(done: int, _of: int) -> None:
        if done:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        made(tmp_path / "film.mp4", tmp_path / "stopped", told=stop)
    assert not (tmp_path / "stopped" / "overlay.mp4").exists()


# Drawing -------------------------------------------------------------------------------------------------------------


def square(query: int, top: int, left: int, side: int = 10) -> TrackFrame:
    mask = np.zeros((40, 50), np.uint8, order="F")
    mask[top : top + side, left : left + side] = 1
    return TrackFrame(query, 0, 0.5, 1, side * side, (left, top, side, side), (40, 50), encoded(mask)["counts"])


def test_masks_are_blended_one_after_the_other() -> None:
    plain = np.full((40, 50, 3), 100, np.uint8)
    picture = drawn(plain, [square(0, 5, 5), square(1, 10, 10)])
    first, second = (np.round(0.3 * 100 + 0.7 * np.array(COLOURS[query])) for query in (0, 1))
    both = np.round(0.3 * first + 0.7 * np.array(COLOURS[1]))
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
    strip = legend([text, "the big rabbit"], width)
    assert strip.shape == (2 * STRIP, width, 3)
    assert strip[STRIP:].any()


def test_each_text_has_its_colour_and_stays_in_its_strip() -> None:
    strip = legend(["(Äpfel, jg)"] * 8, 300)
    for query, colour in enumerate(COLOURS):
        part = strip[STRIP * query : STRIP * (query + 1)]
        brightest = part.reshape(-1, 3)[part.reshape(-1, 3).sum(axis=1).argmax()]
        assert tuple(brightest) == colour
        rows, columns = part.any(axis=2).nonzero()
        assert 2 <= rows.min() < rows.max() <= STRIP - 3
        assert abs((columns.min() + columns.max()) / 2 - 150) <= 2


def test_accents_are_left_out_rather_than_the_letters() -> None:
    assert printable("  Äpfel\n  à la  crème ") == "Apfel a la creme"
    assert np.array_equal(legend(["café"], 200), legend(["cafe"], 200))
    assert not np.array_equal(legend(["cafe"], 200), legend(["care"], 200))


def test_pictures_and_masks_must_go_together() -> None:
    plain = np.zeros((40, 50, 3), np.uint8)
    with pytest.raises(Internal, match="more frames"):
        list(overlaid([plain, plain], [square(0, 5, 5)], ["thing"]))
    with pytest.raises(Internal, match="fewer frames"):
        list(overlaid([], [square(0, 5, 5)], ["thing"]))
