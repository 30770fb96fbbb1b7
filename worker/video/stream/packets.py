"""What the packets say without decoding: the time of every frame, where decoding can start, and the frame rate."""

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

RATES = tuple(
    sorted(
        {Fraction(n) for n in (1, 2, 5, 6, 8, 10, 12, 15, 16, 18, 20, 24, 25, 30, 48, 50, 60, 72, 90, 100, 120, 240)}
        | {Fraction(n * 1000, 1001) for n in (12, 15, 24, 30, 48, 60, 120, 240)}
    )
)
"""Frame rates in use: whole ones and the NTSC family (SMPTE ST 2036-1, ITU-R BT.709 part 2)."""

SNAP = Fraction(5, 10_000)
"""How near a measured rate must be to a standard one to be taken for it; 24 and 24000/1001 are twice as far apart."""

RAW = {"mpegvideo", "h264", "hevc", "m4v", "h263", "vc1", "obu"}
"""Streams without a container: they carry no times, and those that demuxers make up for them have gaps."""

JUMP_SECONDS = 10
"""A step back in time by more than this starts a new piece of a spliced stream."""

BROKEN_READS = 16
"""Reads that may fail one after the other before the rest of the file is given up."""


@dataclass(frozen=True, slots=True)
class PacketIndex:
    """Every frame of a film by its packets: eight bytes a frame.

    Args:
        pts: presentation times in display order, strictly increasing, in ticks of the stream.
        keys: presentation times at which decoding can start; empty where the container cannot seek by time.
        end_pts: when the last frame ends.
        regular: whether each pts is the one in the file, so that a frame can be found by it.
        closed: whether no frame is shown before the key packet that it follows in the file.
        failures: reads that failed.
    """

    pts: array[int]
    keys: array[int]
    end_pts: int
    regular: bool
    closed: bool = True
    failures: int = 0

    def key_before(self, pts: int, back: int = 0) -> int | None:
        """The nearest point at or before `pts` where decoding can start, or the one `back` further; None: the start."""
        at = bisect_right(self.keys, pts) - 1 - back
        return self.keys[at] if at >= 0 else None


def read_packets(
    container: InputContainer, stream: VideoStream, failed: list[int | None]
) -> Iterator[Packet[VideoStream]]:
    """The packets of a stream that hold data; a read that fails is added to `failed` and the next one is tried.

    An empty packet repeats the frame before (Theora, AVI). To a decoder it would mean the end of the stream.
    """
    broken = 0
    while broken < BROKEN_READS:
        try:
            for packet in container.demux(stream):
                broken = 0
                if packet.size:
                    yield packet
            return
        except av.error.InvalidDataError:
            broken += 1
            failed.append(None)


def decoded(stream: VideoStream, packet: Packet[VideoStream] | None, failed: list[int | None]) -> list[VideoFrame]:
    """The pictures that a packet completes; with None those that the decoder still holds.

    A packet that cannot be decoded gives none and is added to `failed` with its pts. Decoders name damage in many ways
    (that of Theora: "operation not permitted"), so every fault counts as damage but the lack of memory.
    """
    try:
        return stream.codec_context.decode(packet)
    except av.error.MemoryError:
        raise
    except av.error.FFmpegError as fault:
        if not isinstance(fault, EOFError):
            failed.append(packet.pts if packet else None)
        return []


def shown(packet: Packet[VideoStream], codec: str) -> bool:
    """Whether a packet becomes a picture: not if an edit list cuts it away, nor if VP8 hides it (RFC 6386, 9.1)."""
    if packet.is_discard:
        return False
    return codec != "vp8" or bool(memoryview(packet)[0] & 0x10)


def scan(container: InputContainer, stream: VideoStream) -> PacketIndex:
    """Read every packet of the stream without decoding (some 250,000 a second)."""
    raw: array[int] = array("q")
    keys: array[int] = array("q")
    failed: list[int | None] = []
    untimed, end, shift, closed = 0, 0, 0, True
    last_dts: int | None = None
    jump = int(JUMP_SECONDS / _tick(stream))
    codec = stream.codec_context.name
    for packet in read_packets(container, stream, failed):
        step = packet.duration or 0
        if packet.dts is not None:
            if last_dts is not None and packet.dts + jump < last_dts:
                shift += last_dts + max(step, 1) - packet.dts
            last_dts = packet.dts
        if packet.pts is None or container.format.name in RAW:
            untimed += shown(packet, codec)
        elif packet.is_keyframe or shown(packet, codec):
            pts = packet.pts + shift
            if packet.is_keyframe:
                keys.append(pts)
            closed &= not keys or pts >= keys[-1]
            if shown(packet, codec):
                raw.append(pts)
                end = max(end, pts + step) if len(raw) > 1 else pts + step
    if not raw:
        return _counted(untimed, stream, len(failed))
    times = strictly_increasing(raw)
    regular = times == _sorted(raw) and not shift
    return PacketIndex(times, _sorted(keys), _end(times, end), regular, closed, len(failed))


def _tick(stream: VideoStream) -> Fraction:
    return stream.time_base or Fraction(1, 90_000)


def _counted(frames: int, stream: VideoStream, failures: int) -> PacketIndex:
    """Raw streams carry no times: frames follow each other at the rate of the stream."""
    rate = stream.guessed_rate or stream.average_rate or Fraction(25)
    step = max(1, round(1 / (rate * _tick(stream))))
    times = array("q", (step * frame for frame in range(frames)))
    return PacketIndex(times, array("q"), step * frames, False, failures=failures)


def _sorted(times: Sequence[int]) -> array[int]:
    return array("q", sorted(times))


def strictly_increasing(times: Sequence[int]) -> array[int]:
    """Times in order, equal ones moved one tick apart."""
    ordered = _sorted(times)
    for at in range(1, len(ordered)):
        if ordered[at] <= ordered[at - 1]:
            ordered[at] = ordered[at - 1] + 1
    return ordered


def _end(pts: array[int], end: int) -> int:
    """End of the last frame; where no packet has a length, the last frame is as long as frames usually are."""
    return end if end > pts[-1] else pts[-1] + usual_step(pts)


def usual_step(pts: array[int]) -> int:
    """The commonest distance between frames in ticks; 1 for a single frame."""
    if len(pts) < 2:
        return 1
    steps = Counter(pts[at] - pts[at - 1] for at in range(1, len(pts)))
    return max(1, steps.most_common(1)[0][0])


def snapped(rate: Fraction) -> Fraction:
    """The standard rate within 0.05 %, or the rate itself with a small denominator."""
    near = min(RATES, key=lambda known: abs(known - rate))
    return near if abs(near - rate) <= near * SNAP else rate.limit_denominator(1001)


def frame_rate(pts: array[int], time_base: Fraction, claims: Sequence[Fraction | None]) -> tuple[Fraction, bool]:
    """(frames per second, whether it varies), from the times of the packets.

    Args:
        pts: display order.
        time_base: seconds per tick.
        claims: rates that the headers claim; believed only as far as the packets agree.

    A rate whose grid explains every time (to the tick, as containers round) is exact. Otherwise the rate varies, and
    the nominal one is that of the commonest step.
    """
    stated = [snapped(claim) for claim in claims if claim and 0 < claim <= 1000]
    if len(pts) < 2:
        return (stated[0] if stated else Fraction(0)), False
    measured = snapped(Fraction(len(pts) - 1) / ((pts[-1] - pts[0]) * time_base))
    for rate in [*stated, measured]:
        if _on_grid(pts, 1 / (rate * time_base)):
            return rate, False
    step = usual_step(pts)
    fitting = [rate for rate in stated if abs(1 / (rate * time_base) - step) < 1]
    return (fitting[0] if fitting else snapped(1 / (step * time_base))), True


def _on_grid(pts: array[int], step: Fraction) -> bool:
    """Whether frame i is shown at i steps after the first, but for rounding of both to a tick."""
    first, above, below = pts[0], step.numerator, step.denominator
    slack = 3 * below // 2
    return all(abs((time - first) * below - at * above) <= slack for at, time in enumerate(pts))
