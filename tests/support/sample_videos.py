"""Make videos for tests with ffmpeg, and decode them with ffmpeg as the reference."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import imageio_ffmpeg
import numpy as np
from av.video.frame import VideoFrame

FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()
X264_OPTIONS = ("-c:v", "libx264", "-preset", "veryfast", "-g", "25", "-bf", "2")


def run_ffmpeg(*arguments: str | Path) -> bytes:
    """Run ffmpeg and return its standard output."""
    command = [FFMPEG, "-nostdin", "-hide_banner", "-loglevel", "error", "-y", *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True).stdout


def pattern_input(size: str = "160x120", rate: str = "25", seconds: float = 2) -> tuple[str, ...]:
    """Input arguments: a moving test frame in which no two frames are alike."""
    return ("-f", "lavfi", "-i", f"testsrc2=s={size}:r={rate}:d={seconds}")


def make_plain(out: Path) -> None:
    """H.264 with B-frames and sound, its index at the end."""
    run_ffmpeg(*pattern_input(), "-f", "lavfi", "-i", "sine=d=2", *X264_OPTIONS, "-c:a", "aac", "-shortest", out)


def make_vfr(out: Path) -> None:
    run_ffmpeg(
        *pattern_input(rate="30"), "-vf", "select='not(mod(n,3))+lt(n,20)'", "-fps_mode", "vfr", *X264_OPTIONS, out
    )


def make_rotated(out: Path) -> None:
    make_plain(out.with_suffix(".plain.mp4"))
    run_ffmpeg("-display_rotation", "90", "-i", out.with_suffix(".plain.mp4"), "-c", "copy", out)


def make_edited(out: Path) -> None:
    """An edit list that starts between two key frames, so that frames are decoded and not shown."""
    make_plain(out.with_suffix(".plain.mp4"))
    run_ffmpeg("-ss", "0.6", "-i", out.with_suffix(".plain.mp4"), "-c", "copy", out)


def make_late(out: Path) -> None:
    run_ffmpeg(*pattern_input(), *X264_OPTIONS, "-output_ts_offset", "10", "-muxdelay", "0", out)


def make_anamorphic(out: Path) -> None:
    run_ffmpeg(*pattern_input(), "-vf", "setsar=4/3", *X264_OPTIONS, out)


def make_interlaced(out: Path) -> None:
    run_ffmpeg(*pattern_input(), "-c:v", "mpeg2video", "-flags", "+ildct+ilme", "-vf", "setfield=tff", out)


def make_pq(out: Path) -> None:
    colours = "log-level=none:colorprim=bt2020:transfer=smpte2084:colormatrix=bt2020nc"
    run_ffmpeg(*pattern_input(seconds=1), "-pix_fmt", "yuv420p10le", "-c:v", "libx265", "-x265-params", colours, out)


def make_deep(out: Path) -> None:
    run_ffmpeg(*pattern_input(seconds=1), "-pix_fmt", "yuv420p10le", *X264_OPTIONS, out)


def make_one_frame(out: Path) -> None:
    run_ffmpeg(*pattern_input(), "-frames:v", "1", *X264_OPTIONS, out)


def make_av1(out: Path) -> None:
    run_ffmpeg(*pattern_input(seconds=1), "-c:v", "libaom-av1", "-cpu-used", "8", "-lag-in-frames", "10", out)


def make_vp8(out: Path) -> None:
    """Hidden reference frames: packets that never become a frame."""
    run_ffmpeg(*pattern_input(), "-c:v", "libvpx", "-auto-alt-ref", "1", "-lag-in-frames", "16", "-b:v", "200k", out)


def make_xvid(out: Path) -> None:
    run_ffmpeg(*pattern_input(), "-c:v", "mpeg4", "-bf", "2", out)


def make_raw(out: Path) -> None:
    """No container, no times."""
    run_ffmpeg(*pattern_input(), *X264_OPTIONS, "-f", "h264", out)


def make_open_gop(out: Path) -> None:
    run_ffmpeg(*pattern_input(), *X264_OPTIONS, "-x264-params", "open-gop=1:keyint=12:min-keyint=12", out)


VIDEO_MAKERS: dict[str, Callable[[Path], None]] = {
    "plain.mp4": make_plain, "vfr.mp4": make_vfr, "rotated.mp4": make_rotated, "edited.mp4": make_edited,
    "late.ts": make_late, "anamorphic.mp4": make_anamorphic, "interlaced.mpg": make_interlaced, "pq.mp4": make_pq,
    "deep.mkv": make_deep, "one_frame.mp4": make_one_frame, "av1.mp4": make_av1, "vp8.webm": make_vp8,
    "xvid.avi": make_xvid, "raw.h264": make_raw, "open_gop.mkv": make_open_gop,
}  # fmt: skip


def read_reference_frames(path: Path) -> tuple[list[Fraction], list[str]]:
    """Return (seconds since the first frame, MD5 of the samples) of every frame that ffmpeg decodes, not rotated."""
    output = run_ffmpeg(
        "-max_error_rate",
        "1",
        "-noautorotate",
        "-i",
        path,
        "-map",
        "0:V:0",
        "-fps_mode",
        "passthrough",
        "-enc_time_base",
        "demux",
        "-f",
        "framemd5",
        "-",
    )
    lines = output.decode().splitlines()
    tick = Fraction(next(line for line in lines if line.startswith("#tb 0:")).split(":")[1].strip())
    rows = [line.split(",") for line in lines if not line.startswith("#")]
    times = [int(row[2]) * tick for row in rows]
    return [time - times[0] for time in times], [row[5].strip() for row in rows]


def digest_frame(frame: VideoFrame) -> str:
    """MD5 of the samples of a frame, comparable with `read_reference_frames`."""
    md5 = hashlib.md5(usedforsecurity=False)
    for index, plane in enumerate(frame.planes):
        parts = frame.format.components
        packed = len(frame.planes) == 1
        bytes_a_pixel = (2 if parts[0].bits > 8 else 1) * (len(parts) if packed else 1)
        width = frame.width if packed else parts[index].width
        samples = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
        md5.update(np.ascontiguousarray(samples[: plane.height, : width * bytes_a_pixel]))
    return md5.hexdigest()


def write_damaged(source: Path, out: Path, start: float, stop: float) -> Path:
    """Copy a file with the bytes between two parts of its length (0..1) overwritten by fixed random bytes."""
    data = bytearray(source.read_bytes())
    first, last = int(len(data) * start), int(len(data) * stop)
    data[first:last] = np.random.default_rng(7).integers(0, 256, last - first, dtype=np.uint8).tobytes()
    out.write_bytes(data)
    return out
