"""Open a video: the only place that does, by content, from an open descriptor, and only as a known container.

A playlist (HLS, DASH, concat, SDP) is a video that names other files or addresses. Three measures keep it out: the list
of demuxers below, the list of protocols (only the descriptor that we opened), and a neutral file name, so that the
content alone decides what a file is. Options: ffmpeg-formats(1) `format_whitelist`, ffmpeg-protocols(1) `fd`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av
from av.container import InputContainer
from av.stream import Discard, Disposition
from av.video.stream import VideoStream

from shared.errors import MediaCorrupt, NoVideoStream, UnsupportedMedia

VIDEO_DEMUXERS = (
    "mov", "matroska", "webm", "avi", "mpegts", "mpeg", "mpegvideo", "flv", "live_flv", "asf", "ogg", "rm", "gif",
    "swf", "mxf", "gxf", "dv", "ivf", "nut", "nsv", "h264", "hevc", "obu", "m4v", "h263", "vc1",
    "yuv4mpegpipe", "wtv", "3gp",
)  # fmt: skip
"""Demuxers of videos: each reads one self-contained file."""

AUDIO_DEMUXERS = ("mp3", "aac", "flac", "wav", "w64", "aiff", "amr", "ac3", "eac3", "caf", "ape", "wv", "tta", "au")
"""Demuxers of audio: accepted so that the error can be "no video stream" instead of "not a video"."""

MAGIC_BYTES: tuple[tuple[int, bytes], ...] = (
    (4, b"ftyp"), (4, b"moov"), (4, b"mdat"), (4, b"wide"), (4, b"free"), (4, b"skip"), (0, b"\x1aE\xdf\xa3"),
    (8, b"AVI "), (0, b"OggS"), (0, b"FLV\x01"), (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11"), (0, b"\x00\x00\x01\xba"),
    (0, b"\x00\x00\x01\xb3"), (0, b".RMF"), (0, b"FWS"), (0, b"CWS"), (0, b"GIF8"),
)  # fmt: skip
"""(offset, first bytes) of videos: they distinguish a damaged video from a file that never was one."""


@contextmanager
def open_container(path: Path) -> Iterator[InputContainer]:
    """Open the container of a file; it is closed at the end of the context.

    Raises:
        UnsupportedMedia: empty, not a video, or a container that is not accepted (playlists are among these).
        MediaCorrupt: begins as a video but cannot be opened: cut off before its index, or damaged.
    """
    container = _open_restricted(path)
    with container:
        yield container


def _open_restricted(path: Path) -> InputContainer:
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
    try:
        options = {
            "fd": str(descriptor),
            "protocol_whitelist": "fd",
            "format_whitelist": ",".join(VIDEO_DEMUXERS + AUDIO_DEMUXERS),
            "correct_ts_overflow": "0",  # it mistakes a splice that goes back by a minute for a wrap of the counter
        }
        return av.open("fd:", options=options, metadata_errors="replace")
    except (av.error.FFmpegError, ValueError, OSError) as error:
        raise _classify_failure(os.pread(descriptor, 16, 0), error) from error
    finally:
        os.close(descriptor)


def _classify_failure(head: bytes, error: Exception) -> UnsupportedMedia | MediaCorrupt:
    """Decide by its first bytes why a file could not be opened."""
    if not head:
        return UnsupportedMedia("the file is empty")
    if isinstance(error, av.error.ArgumentError):  # FFmpeg's error for a demuxer that is not on the list
        return UnsupportedMedia("this kind of file is not accepted as a video (playlists and images are not)")
    if any(head[at : at + len(mark)] == mark for at, mark in MAGIC_BYTES):
        return MediaCorrupt("the file begins as a video but cannot be opened: it is cut off or damaged")
    return UnsupportedMedia("the content is not that of a video")


def select_video_stream(container: InputContainer) -> VideoStream:
    """Select the first video stream that is not cover art, and discard the others from here on.

    Raises:
        NoVideoStream: sound or cover art only.
        UnsupportedMedia: a codec without a decoder.
    """
    still_images = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image
    video_streams = [stream for stream in container.streams.video if not stream.disposition & still_images]
    if not video_streams:
        raise NoVideoStream("the file has audio or cover art, but no video")
    video_stream = video_streams[0]
    if video_stream.codec_context is None:
        raise UnsupportedMedia("there is no decoder for the video codec of this file")
    for stream in container.streams:
        if stream is not video_stream:
            stream.discard = Discard.all
    return video_stream
