"""Films made for tests with ffmpeg, and the same films decoded by ffmpeg as the reference."""

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
X264 = ("-c:v", "libx264", "-preset", "veryfast", "-g", "25", "-bf", "2")


def ffmpeg(*arguments: str | Path) -> bytes:
    """What ffmpeg wrote to its standard output."""
    command = [FFMPEG, "-nostdin", "-hide_banner", "-loglevel", "error", "-y", *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True).stdout


def pattern(size: str = "160x120", rate: str = "25", seconds: float = 2) -> tuple[str, ...]:
    """Input arguments: a moving test picture in which no two frames are alike."""
    return ("-f", "lavfi", "-i", f"testsrc2=s={size}:r={rate}:d={seconds}")


def plain(out: Path) -> None:
    """H.264 with B-frames and sound, its index at the end."""
    ffmpeg(*pattern(), "-f", "lavfi", "-i", "sine=d=2", *X264, "-c:a", "aac", "-shortest", out)


def vfr(out: Path) -> None:
    ffmpeg(*pattern(rate="30"), "-vf", "select='not(mod(n,3))+lt(n,20)'", "-fps_mode", "vfr", *X264, out)


def rotated(out: Path) -> None:
    plain(out.with_suffix(".plain.mp4"))
    ffmpeg("-display_rotation", "90", "-i", out.with_suffix(".plain.mp4"), "-c", "copy", out)


def edited(out: Path) -> None:
    """An edit list that starts between two key frames, so that frames are decoded and not shown."""
    plain(out.with_suffix(".plain.mp4"))
    ffmpeg("-ss", "0.6", "-i", out.with_suffix(".plain.mp4"), "-c", "copy", out)


def late(out: Path) -> None:
    ffmpeg(*pattern(), *X264, "-output_ts_offset", "10", "-muxdelay", "0", out)


def anamorphic(out: Path) -> None:
    ffmpeg(*pattern(), "-vf", "setsar=4/3", *X264, out)


def interlaced(out: Path) -> None:
    ffmpeg(*pattern(), "-c:v", "mpeg2video", "-flags", "+ildct+ilme", "-vf", "setfield=tff", out)


def pq(out: Path) -> None:
    colours = "log-level=none:colorprim=bt2020:transfer=smpte2084:colormatrix=bt2020nc"
    ffmpeg(*pattern(seconds=1), "-pix_fmt", "yuv420p10le", "-c:v", "libx265", "-x265-params", colours, out)


def deep(out: Path) -> None:
    ffmpeg(*pattern(seconds=1), "-pix_fmt", "yuv420p10le", *X264, out)


def one_frame(out: Path) -> None:
    ffmpeg(*pattern(), "-frames:v", "1", *X264, out)


def av1(out: Path) -> None:
    ffmpeg(*pattern(seconds=1), "-c:v", "libaom-av1", "-cpu-used", "8", "-lag-in-frames", "10", out)


def vp8(out: Path) -> None:
    """Hidden reference frames: packets that never become a picture."""
    ffmpeg(*pattern(), "-c:v", "libvpx", "-auto-alt-ref", "1", "-lag-in-frames", "16", "-b:v", "200k", out)


def xvid(out: Path) -> None:
    ffmpeg(*pattern(), "-c:v", "mpeg4", "-bf", "2", out)


def raw(out: Path) -> None:
    """No container, no times."""
    ffmpeg(*pattern(), *X264, "-f", "h264", out)


def open_gop(out: Path) -> None:
    ffmpeg(*pattern(), *X264, "-x264-params", "open-gop=1:keyint=12:min-keyint=12", out)


FILMS: dict[str, Callable[[Path], None]] = {
    "plain.mp4": plain, "vfr.mp4": vfr, "rotated.mp4": rotated, "edited.mp4": edited, "late.ts": late,
    "anamorphic.mp4": anamorphic, "interlaced.mpg": interlaced, "pq.mp4": pq, "deep.mkv": deep,
    "one_frame.mp4": one_frame, "av1.mp4": av1, "vp8.webm": vp8, "xvid.avi": xvid, "raw.h264": raw,
    "open_gop.mkv": open_gop,
}  # fmt: skip


def reference(path: Path) -> tuple[list[Fraction], list[str]]:
    """(seconds since the first frame, MD5 of the samples) of every frame that ffmpeg decodes, not turned."""
    made = ffmpeg(
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
    lines = made.decode().splitlines()
    tick = Fraction(next(line for line in lines if line.startswith("#tb 0:")).split(":")[1].strip())
    rows = [line.split(",") for line in lines if not line.startswith("#")]
    times = [int(row[2]) * tick for row in rows]
    return [time - times[0] for time in times], [row[5].strip() for row in rows]


def digest(picture: VideoFrame) -> str:
    """MD5 of the samples of a picture, as `reference` has it."""
    seen = hashlib.md5(usedforsecurity=False)
    for at, plane in enumerate(picture.planes):
        parts = picture.format.components
        packed = len(picture.planes) == 1
        bytes_a_pixel = (2 if parts[0].bits > 8 else 1) * (len(parts) if packed else 1)
        width = picture.width if packed else parts[at].width
        samples = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
        seen.update(np.ascontiguousarray(samples[: plane.height, : width * bytes_a_pixel]))
    return seen.hexdigest()


def damage(source: Path, out: Path, start: float, stop: float) -> Path:
    """A copy with the bytes between two parts of its length (0..1) overwritten by noise, always the same."""
    data = bytearray(source.read_bytes())
    first, last = int(len(data) * start), int(len(data) * stop)
    data[first:last] = np.random.default_rng(7).integers(0, 256, last - first, dtype=np.uint8).tobytes()
    out.write_bytes(data)
    return out
