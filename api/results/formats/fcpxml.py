"""Results as a project of Final Cut Pro: FCPXML 1.9, written with what the library for timelines leaves out.

Apple, Final Cut Pro X XML Format, "Resources" and "Story Elements": times are rational numbers of seconds, and where a
video is cut they must be whole frames of the sequence. So they are counted as an edit list counts (`edits.edit_rate`).
"""

from __future__ import annotations

from fractions import Fraction
from urllib.parse import quote
from xml.etree import ElementTree as Xml

from api.results.formats.edits import DROP_FRAME_RATES, Edit, choose_edl_rate
from api.results.formats.text import format_title, iter_spans

XML_HEADER = '<?xml version="1.0" encoding="UTF-8"?>\n<!DOCTYPE fcpxml>\n'
INVALID_XML_CHARS = {ord(letter): None for letter in map(chr, [*range(0x20), 0xFFFE, 0xFFFF]) if letter not in "\t\n\r"}
"""Characters that XML 1.0 cannot hold."""


def render_fcpxml(edit: Edit) -> str:
    """The edit as a project; the video is looked for beside the file, by its name."""
    rate = choose_edl_rate(edit.video.facts.clock)
    document = Xml.Element("fcpxml", version="1.9")
    _add_resources(Xml.SubElement(document, "resources"), edit, rate)
    event = Xml.SubElement(Xml.SubElement(document, "library"), "event", name=_strip_invalid_chars(edit.video.name))
    spine = Xml.Element("spine")
    length_frames = _add_clips(spine, edit, rate)
    timecode = "DF" if rate in DROP_FRAME_RATES else "NDF"
    project = Xml.SubElement(event, "project", name=_strip_invalid_chars(edit.video.name))
    sequence = Xml.SubElement(
        project, "sequence", format="r1", tcStart="0s", tcFormat=timecode, duration=_format_seconds(length_frames, rate)
    )
    sequence.append(spine)
    Xml.indent(document)
    return XML_HEADER + Xml.tostring(document, encoding="unicode") + "\n"


def _add_resources(parent: Xml.Element, edit: Edit, rate: Fraction) -> None:
    """The format of frames, and the video."""
    facts = edit.video.facts
    size = {"width": str(facts.width), "height": str(facts.height)}
    Xml.SubElement(parent, "format", {"id": "r1", "frameDuration": _format_seconds(1, rate)} | size)
    duration = _format_seconds(round(facts.duration * rate), rate)
    attributes = {
        "id": "r2",
        "name": _strip_invalid_chars(edit.video.name),
        "start": "0s",
        "duration": duration,
        "format": "r1",
    }
    audio_attributes = {"hasAudio": "1", "audioSources": str(len(facts.audio))} if facts.audio else {}
    asset = Xml.SubElement(parent, "asset", attributes | {"hasVideo": "1"} | audio_attributes)
    Xml.SubElement(asset, "media-rep", kind="original-media", src=f"./{quote(edit.video.name)}")


def _add_clips(spine: Xml.Element, edit: Edit, rate: Fraction) -> int:
    """One clip a row, with gaps where they are not laid back to back; the length in frames."""
    end_frame = 0
    for row, span in iter_spans(edit.rows):
        first, last = (round(moment.seconds * rate) for moment in (span.start, span.end))
        if last <= first:
            continue  # shorter than a frame of this rate
        if first > end_frame and not edit.back_to_back:
            Xml.SubElement(
                spine, "gap", offset=_format_seconds(end_frame, rate), duration=_format_seconds(first - end_frame, rate)
            )
            end_frame = first
        times = {
            "offset": _format_seconds(end_frame, rate),
            "start": _format_seconds(first, rate),
            "duration": _format_seconds(last - first, rate),
        }
        Xml.SubElement(spine, "asset-clip", {"ref": "r2", "name": format_title(row)} | times)
        end_frame += last - first
    return end_frame


def _format_seconds(frames: int, rate: Fraction) -> str:
    """A number of frames in seconds: `1001/30000s`."""
    seconds = frames / rate
    return f"{seconds.numerator}/{seconds.denominator}s" if seconds.denominator > 1 else f"{seconds.numerator}s"


def _strip_invalid_chars(text: str) -> str:
    return text.translate(INVALID_XML_CHARS)
