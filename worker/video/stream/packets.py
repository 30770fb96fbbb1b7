"""Index the packets of a stream without decoding: the time of every frame, key packets, and the frame rate."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

import av
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

STANDARD_RATES = tuple(
    sorted(
        {Fraction(n) for n in (1, 2, 5, 6, 8, 10, 12, 15, 16, 18, 20, 24, 25, 30, 48, 50, 60, 72, 90, 100, 120, 240)}
        | {Fraction(n * 1000, 1001) for n in (12, 15, 24, 30, 48, 60, 120, 240)}
    )
)
"""Frame rates in use: whole ones and the NTSC family (SMPTE ST 2036-1, ITU-R BT.709 part 2)."""

SNAP_TOLERANCE = Fraction(5, 10_000)
"""Relative distance at which a measured rate counts as a standard one; 24 and 24000/1001 are twice as far apart."""

RAW_FORMATS = {"mpegvideo", "h264", "hevc", "m4v", "h263", "vc1", "obu"}
"""Streams without a container: they carry no times, and the times that demuxers invent for them have gaps."""

JUMP_SECONDS = 10
"""A step back in time by more than this starts a new part of a spliced stream."""

MAX_FAILED_READS = 16
"""Consecutive reads that may fail before the rest of the file is given up."""


@dataclass(frozen=True, slots=True)
class PacketIndex:
    """Times of all frames of a video according to its packets: eight bytes a frame.

    Args:
        pts: presentation times in display order, strictly increasing, in ticks of the stream.
        key_pts: presentation times at which decoding can start; empty where the container cannot seek by time.
        end_pts: when the last frame ends.
        has_exact_pts: whether each pts is the one in the file, so that a frame can be located by it.
        has_closed_gops: whether no frame is shown before the key packet that it follows in the file.
        failed_reads: reads that failed.
    """

    pts: array[int]
    key_pts: array[int]
    end_pts: int
    has_exact_pts: bool
    has_closed_gops: bool = True
    failed_reads: int = 0

    def key_pts_before(self, pts: int, back: int = 0) -> int | None:
        """Return the last key packet at or before `pts`, or the one `back` before it; None: the start of the video."""
        at = bisect_right(self.key_pts, pts) - 1 - back
        return self.key_pts[at] if at >= 0 else None


def read_packets(
    container: InputContainer, stream: VideoStream, failed_pts: list[int | None]
) -> Iterator[Packet[VideoStream]]:
    """Yield the packets of a stream that hold data; a read that fails is added to `failed_pts` and the next is tried.

    An empty packet repeats the frame before (Theora, AVI). To a decoder it would mean the end of the stream.
    """
    failed_reads = 0
    while failed_reads < MAX_FAILED_READS:
        try:
            for packet in container.demux(stream):
                failed_reads = 0
                if packet.size:
                    yield packet
            return
        except av.error.InvalidDataError:
            failed_reads += 1
            failed_pts.append(None)


def decode_packet(
    stream: VideoStream, packet: Packet[VideoStream] | None, failed_pts: list[int | None]
) -> list[VideoFrame]:
    """Decode a packet: the frames that it completes; with None the frames that the decoder still holds.

    A packet that cannot be decoded gives none, and its pts is added to `failed_pts`. Decoders report damage with many
    errors (that of Theora: "operation not permitted"), so every error but lack of memory counts as damage.
    """
    try:
        return stream.codec_context.decode(packet)
    except av.error.MemoryError:
        raise
    except av.error.FFmpegError as error:
        if not isinstance(error, EOFError):
            failed_pts.append(packet.pts if packet else None)
        return []


def is_shown(packet: Packet[VideoStream], codec: str) -> bool:
    """Whether a packet becomes a visible frame: not if an edit list removes it, nor if VP8 hides it (RFC 6386, 9.1)."""
    if packet.is_discard:
        return False
    return codec != "vp8" or bool(memoryview(packet)[0] & 0x10)


def index_packets(container: InputContainer, stream: VideoStream) -> PacketIndex:
    """Read every packet of the stream without decoding (some 250,000 a second) and build the index."""
    raw_pts: array[int] = array("q")
    key_pts: array[int] = array("q")
    failed_pts: list[int | None] = []
    untimed, end, shift, has_closed_gops = 0, 0, 0, True
    last_dts: int | None = None
    jump = int(JUMP_SECONDS / _tick_seconds(stream))
    codec = stream.codec_context.name
    for packet in read_packets(container, stream, failed_pts):
        step = packet.duration or 0
        if packet.dts is not None:
            # Decoding times ascend, so a large step back is a splice: from here on all times are shifted to continue.
            if last_dts is not None and packet.dts + jump < last_dts:
                shift += last_dts + max(step, 1) - packet.dts
            last_dts = packet.dts
        if packet.pts is None or container.format.name in RAW_FORMATS:
            untimed += is_shown(packet, codec)
        elif packet.is_keyframe or is_shown(packet, codec):
            pts = packet.pts + shift
            if packet.is_keyframe:
                key_pts.append(pts)
            has_closed_gops &= not key_pts or pts >= key_pts[-1]
            if is_shown(packet, codec):
                raw_pts.append(pts)
                end = max(end, pts + step) if len(raw_pts) > 1 else pts + step
    if not raw_pts:
        return _index_untimed(untimed, stream, len(failed_pts))
    times = make_strictly_increasing(raw_pts)
    has_exact_pts = times == _sorted_array(raw_pts) and not shift
    return PacketIndex(
        times, _sorted_array(key_pts), _end_of_last_frame(times, end), has_exact_pts, has_closed_gops, len(failed_pts)
    )


def _tick_seconds(stream: VideoStream) -> Fraction:
    return stream.time_base or Fraction(1, 90_000)


def _index_untimed(frames: int, stream: VideoStream, failures: int) -> PacketIndex:
    """Build the index of a raw stream, which carries no times: frames are spaced by the rate of the stream."""
    rate = stream.guessed_rate or stream.average_rate or Fraction(25)
    step = max(1, round(1 / (rate * _tick_seconds(stream))))
    times = array("q", (step * frame for frame in range(frames)))
    return PacketIndex(times, array("q"), step * frames, False, failed_reads=failures)


def _sorted_array(times: Sequence[int]) -> array[int]:
    return array("q", sorted(times))


def make_strictly_increasing(times: Sequence[int]) -> array[int]:
    """Sort times and move equal ones one tick apart."""
    ordered = _sorted_array(times)
    for at in range(1, len(ordered)):
        if ordered[at] <= ordered[at - 1]:
            ordered[at] = ordered[at - 1] + 1
    return ordered


def _end_of_last_frame(pts: array[int], end: int) -> int:
    """End of the last frame; if no packet has a duration, the last frame is as long as most frames are."""
    return end if end > pts[-1] else pts[-1] + most_common_step(pts)


def most_common_step(pts: array[int]) -> int:
    """Most common distance between frames in ticks; 1 for a single frame."""
    if len(pts) < 2:
        return 1
    steps = Counter(pts[at] - pts[at - 1] for at in range(1, len(pts)))
    return max(1, steps.most_common(1)[0][0])


def snap_rate(rate: Fraction) -> Fraction:
    """Return the standard rate within 0.05 %, or the rate itself with a small denominator."""
    nearest = min(STANDARD_RATES, key=lambda known: abs(known - rate))
    return nearest if abs(nearest - rate) <= nearest * SNAP_TOLERANCE else rate.limit_denominator(1001)


def estimate_frame_rate(
    pts: array[int], time_base: Fraction, claims: Sequence[Fraction | None]
) -> tuple[Fraction, bool]:
    """Estimate (frames per second, whether it varies) from the times of the packets.

    Args:
        pts: in display order.
        time_base: seconds per tick.
        claims: rates from the headers; used only if the packets agree.

    A rate whose grid explains every time (to the tick, as containers round) is exact. Otherwise the rate varies, and
    the nominal one is that of the most common step.
    """
    claimed = [snap_rate(claim) for claim in claims if claim and 0 < claim <= 1000]
    if len(pts) < 2:
        return (claimed[0] if claimed else Fraction(0)), False
    measured = snap_rate(Fraction(len(pts) - 1) / ((pts[-1] - pts[0]) * time_base))
    for rate in [*claimed, measured]:
        if _is_on_grid(pts, 1 / (rate * time_base)):
            return rate, False
    step = most_common_step(pts)
    fitting = [rate for rate in claimed if abs(1 / (rate * time_base) - step) < 1]
    return (fitting[0] if fitting else snap_rate(1 / (step * time_base))), True


def _is_on_grid(pts: array[int], step: Fraction) -> bool:
    """Whether frame i is shown i steps after the first, except for rounding both times to a tick."""
    # In integers: a video has up to millions of frames, and Fractions are much slower.
    first, above, below = pts[0], step.numerator, step.denominator
    slack = 3 * below // 2
    return all(abs((time - first) * below - at * above) <= slack for at, time in enumerate(pts))
