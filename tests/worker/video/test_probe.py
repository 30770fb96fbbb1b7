"""What a file is: facts that are exact, and files that are not videos."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import iscc_samples
import pytest
from PIL import Image

from shared.errors import MediaCorrupt, NoVideoStream, UnsupportedMedia
from shared.values import VideoFacts
from tests.support.sample_videos import X264_OPTIONS, pattern_input, run_ffmpeg, write_damaged
from worker.video.probe import probe_video

GetVideoPath = Callable[[str], Path]

PLAYLISTS = {
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXT-X-MEDIA-SEQUENCE:0\n#EXTINF:2,\n{video}\n#EXT-X-ENDLIST\n",
    "concat": "ffconcat version 1.0\nfile '{video}'\n",
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n"
    "a=rtpmap:96 H264/90000\n",
    "dash": '<?xml version="1.0"?>\n<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static">'
    "<Period><AdaptationSet><Representation><BaseURL>{video}</BaseURL></Representation></AdaptationSet></Period></MPD>",
    "imf": '<?xml version="1.0"?><CompositionPlaylist xmlns="http://www.smpte-ra.org/schemas/2067-3/2016"/>',
}


@pytest.mark.parametrize("kind", PLAYLISTS)
@pytest.mark.parametrize("ending", [".mp4", "", ".m3u8"])
def test_a_playlist_opens_nothing(kind: str, ending: str, get_video_path: GetVideoPath, tmp_path: Path) -> None:
    path = tmp_path / f"innocent{ending}"
    path.write_text(PLAYLISTS[kind].format(video=get_video_path("plain.mp4")))
    with pytest.raises(UnsupportedMedia) as refused:
        probe_video(path)
    assert str(tmp_path) not in refused.value.detail


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "empty"), (b"hello world\n" * 50, "not that of a video"), (bytes(range(256)) * 400, "not that of a video")],
    ids=["empty", "text", "bytes"],
)
def test_a_file_that_is_no_video_is_refused(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "video.mp4"
    path.write_bytes(content)
    with pytest.raises(UnsupportedMedia, match=message):
        probe_video(path)


def test_an_image_is_no_video(tmp_path: Path) -> None:
    Image.new("RGB", (64, 64), "red").save(tmp_path / "video.png")
    with pytest.raises(UnsupportedMedia):
        probe_video(tmp_path / "video.png")


def test_cut_before_its_index(get_video_path: GetVideoPath, tmp_path: Path) -> None:
    path = tmp_path / "cut.mp4"
    path.write_bytes(get_video_path("plain.mp4").read_bytes()[:20_000])
    for damaged in (False, True):
        with pytest.raises(MediaCorrupt):
            probe_video(path, allow_damaged=damaged)


def test_cut_after_its_index(get_video_path: GetVideoPath, tmp_path: Path) -> None:
    whole, path = tmp_path / "whole.mp4", tmp_path / "cut.mp4"
    run_ffmpeg("-i", get_video_path("plain.mp4"), "-c", "copy", "-movflags", "+faststart", whole)
    data = whole.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(MediaCorrupt, match="cut off"):
        probe_video(path)
    video = probe_video(path, allow_damaged=True)
    assert video.truncated
    assert 5 < video.frames < 45
    assert not probe_video(whole).truncated


def test_a_video_without_decodable_frames_is_corrupt(get_video_path: GetVideoPath, tmp_path: Path) -> None:
    index = get_video_path("plain.mp4").read_bytes().rindex(b"moov") / get_video_path("plain.mp4").stat().st_size
    with pytest.raises(MediaCorrupt, match="no frame"):
        probe_video(write_damaged(get_video_path("plain.mp4"), tmp_path / "noise.mp4", 0.001, index - 0.001))


def test_sound_alone(tmp_path: Path) -> None:
    cover = tmp_path / "cover.jpg"
    Image.new("RGB", (64, 64), "red").save(cover)
    tone = ("-f", "lavfi", "-i", "sine=d=1")
    run_ffmpeg(*tone, tmp_path / "tone.m4a")
    run_ffmpeg(
        *tone,
        "-i",
        cover,
        "-map",
        "0",
        "-map",
        "1",
        "-c:v",
        "copy",
        "-disposition:v",
        "attached_pic",
        tmp_path / "a.mp3",
    )
    run_ffmpeg(
        *tone,
        "-i",
        cover,
        "-map",
        "0",
        "-map",
        "1",
        "-c:v",
        "copy",
        "-disposition:v",
        "attached_pic",
        tmp_path / "b.mp4",
    )
    run_ffmpeg(*tone, tmp_path / "c.wav")
    for name in ("tone.m4a", "a.mp3", "b.mp4", "c.wav"):
        with pytest.raises(NoVideoStream):
            probe_video(tmp_path / name)


def test_cover_art_is_not_the_video_stream(get_video_path: GetVideoPath, tmp_path: Path) -> None:
    cover = tmp_path / "cover.jpg"
    Image.new("RGB", (640, 640), "red").save(cover)
    both = ("-map", "0", "-map", "1:v", "-c", "copy", "-disposition:v:0", "attached_pic")
    run_ffmpeg("-i", cover, "-i", get_video_path("plain.mp4"), *both, tmp_path / "both.mp4")
    video = probe_video(tmp_path / "both.mp4")
    assert (video.codec, video.coded_width, video.frames) == ("h264", 160, 50)


def test_the_file_name_is_not_used(get_video_path: GetVideoPath, tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(get_video_path("plain.mp4").read_bytes())
    assert probe_video(path) == probe_video(get_video_path("plain.mp4"))


@pytest.mark.parametrize("rate", ["24000/1001", "24", "25", "30000/1001", "30", "50", "60000/1001", "60", "15", "12"])
@pytest.mark.parametrize("ending", ["mp4", "mkv", "ts", "flv"])
def test_rates_are_exact(rate: str, ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"video.{ending}"
    run_ffmpeg(*pattern_input("64x48", rate, 3), "-c:v", "libx264", "-preset", "ultrafast", path)
    clock = probe_video(path).clock
    assert (clock.fps, clock.vfr) == (Fraction(rate), False)


def test_facts_of_a_plain_video(get_video_path: GetVideoPath) -> None:
    video = probe_video(get_video_path("plain.mp4"))
    assert (video.container, video.codec, video.pixel_format, video.bit_depth) == ("mov", "h264", "yuv420p", 8)
    assert (video.width, video.height, video.rotation) == (160, 120, 0)
    assert (video.frames, video.duration, video.start_time) == (50, 2, 0)
    assert [(track.codec, track.channels, track.sample_rate) for track in video.audio] == [("aac", 1, 44100)]
    assert not video.interlaced
    assert video.transfer is None


def test_facts_of_unusual_videos(get_video_path: GetVideoPath) -> None:
    assert probe_video(get_video_path("vfr.mp4")).clock.vfr
    turned = probe_video(get_video_path("rotated.mp4"))
    assert (turned.rotation, turned.width, turned.height, turned.coded_width) == (90, 120, 160, 160)
    wide = probe_video(get_video_path("anamorphic.mp4"))
    assert (wide.sample_aspect_ratio, wide.width, wide.height, wide.coded_width) == (Fraction(4, 3), 213, 120, 160)
    late = probe_video(get_video_path("late.ts"))
    assert (late.start_time, late.container_start_time, late.duration) == (10, 10, 2)
    deep = probe_video(get_video_path("pq.mp4"))
    assert (deep.bit_depth, deep.transfer, deep.codec) == (10, "smpte2084", "hevc")
    assert probe_video(get_video_path("interlaced.mpg")).interlaced
    assert probe_video(get_video_path("av1.mp4")).codec == "av1"
    assert probe_video(get_video_path("vp8.webm")).frames == 50
    edited = probe_video(get_video_path("edited.mp4"))
    assert (edited.frames, edited.start_time) == (35, 0)


def test_an_absurd_pixel_aspect_counts_as_square(tmp_path: Path) -> None:
    run_ffmpeg(*pattern_input(seconds=0.2), "-vf", "setsar=500/1", *X264_OPTIONS, tmp_path / "video.mkv")
    video = probe_video(tmp_path / "video.mkv")
    assert (video.sample_aspect_ratio, video.width, video.height) == (1, 160, 120)


def test_one_frame(get_video_path: GetVideoPath) -> None:
    video = probe_video(get_video_path("one_frame.mp4"))
    assert (video.frames, video.clock.fps, video.duration) == (1, 25, Fraction(1, 25))


def test_a_record_reads_back(get_video_path: GetVideoPath) -> None:
    video = probe_video(get_video_path("late.ts"))
    assert VideoFacts.from_dict(json.loads(json.dumps(video.to_dict()))) == video


@pytest.mark.parametrize("path", iscc_samples.videos(), ids=lambda path: path.suffix)
def test_one_clip_in_twenty_containers(path: Path) -> None:
    video = probe_video(path)
    if path.suffix == ".gif":
        assert (video.frames, video.duration) == (120, 5)
        return
    assert video.clock.fps == 24
    assert video.frames in {1440, 1441}  # one frame of the Theora files is a repetition
    assert abs(float(video.duration) - 60.04) < 0.09  # AVI and MPEG-1 leave a gap after the first frame
    assert video.audio or path.suffix == ".m1v"


def command(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "worker.video.probe", *map(str, arguments)], capture_output=True, text=True
    )


def test_the_command(get_video_path: GetVideoPath, tmp_path: Path) -> None:
    done = command(get_video_path("plain.mp4"))
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["video"] == probe_video(get_video_path("plain.mp4")).to_dict()
    (tmp_path / "secret.mp4").write_text("nothing")
    refused = command(tmp_path / "secret.mp4", "--allow-damaged")
    assert refused.returncode == 1
    assert json.loads(refused.stdout)["problem"]["code"] == "unsupported_media"
    assert "secret" not in refused.stdout


def test_the_command_does_not_import_torch() -> None:
    heavy = "{'numpy', 'cv2', 'torch', 'decord', 'PIL', 'sqlalchemy', 'celery', 'flask'}"
    code = f"import sys, worker.video.probe; print({heavy} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "set()"


def test_a_video_with_odd_sizes_and_no_sound(tmp_path: Path) -> None:
    run_ffmpeg(
        *pattern_input("162x122", "25", 1),
        *X264_OPTIONS,
        "-pix_fmt",
        "yuv444p",
        "-vf",
        "crop=161:121:exact=1",
        tmp_path / "odd.mp4",
    )
    video = probe_video(tmp_path / "odd.mp4")
    assert (video.width, video.height, video.audio) == (161, 121, ())
