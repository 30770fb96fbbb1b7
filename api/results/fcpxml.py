"""Results as a project of Final Cut Pro: FCPXML 1.9, written with what the library for timelines leaves out.

Apple, Final Cut Pro X XML Format, "Resources" and "Story Elements": times are rational numbers of seconds, and where a
film is cut they must be whole frames of the sequence. So they are counted as an edit list counts (`edits.edit_rate`).
"""

from __future__ import annotations

from fractions import Fraction
from urllib.parse import quote
from xml.etree import ElementTree as Xml

from api.results.edits import DROPPING, Edit, edit_rate
from api.results.lists import spans, title

HEAD = '<?xml version="1.0" encoding="UTF-8"?>\n<!DOCTYPE fcpxml>\n'
BARE = {ord(letter): None for letter in map(chr, [*range(0x20), 0xFFFE, 0xFFFF]) if letter not in "\t\n\r"}
"""Characters that XML 1.0 cannot hold."""


def final_cut(edit: Edit) -> str:
    """The edit as a project; the film is looked for beside the file, by its name."""
    rate = edit_rate(edit.video.video.clock)
    document = Xml.Element("fcpxml", version="1.9")
    _resources(Xml.SubElement(document, "resources"), edit, rate)
    event = Xml.SubElement(Xml.SubElement(document, "library"), "event", name=_plain(edit.video.name))
    spine = Xml.Element("spine")
    reached = _fill(spine, edit, rate)
    timecode = "DF" if rate in DROPPING else "NDF"
    project = Xml.SubElement(event, "project", name=_plain(edit.video.name))
    sequence = Xml.SubElement(
        project, "sequence", format="r1", tcStart="0s", tcFormat=timecode, duration=_time(reached, rate)
    )
    sequence.append(spine)
    Xml.indent(document)
    return HEAD + Xml.tostring(document, encoding="unicode") + "\n"


def _resources(place: Xml.Element, edit: Edit, rate: Fraction) -> None:
    """The format of frames, and the film."""
    film = edit.video.video
    size = {"width": str(film.width), "height": str(film.height)}
    Xml.SubElement(place, "format", {"id": "r1", "frameDuration": _time(1, rate)} | size)
    lasts = _time(round(film.duration * rate), rate)
    said = {"id": "r2", "name": _plain(edit.video.name), "start": "0s", "duration": lasts, "format": "r1"}
    sound = {"hasAudio": "1", "audioSources": str(len(film.audio))} if film.audio else {}
    asset = Xml.SubElement(place, "asset", said | {"hasVideo": "1"} | sound)
    Xml.SubElement(asset, "media-rep", kind="original-media", src=f"./{quote(edit.video.name)}")


def _fill(spine: Xml.Element, edit: Edit, rate: Fraction) -> int:
    """One clip a row, with gaps where they are not laid back to back; the length in frames."""
    reached = 0
    for row, span in spans(edit.rows):
        first, last = (round(moment.seconds * rate) for moment in (span.start, span.end))
        if last <= first:
            continue  # shorter than a frame of this rate
        if first > reached and not edit.joined:
            Xml.SubElement(spine, "gap", offset=_time(reached, rate), duration=_time(first - reached, rate))
            reached = first
        times = {"offset": _time(reached, rate), "start": _time(first, rate), "duration": _time(last - first, rate)}
        Xml.SubElement(spine, "asset-clip", {"ref": "r2", "name": title(row)} | times)
        reached += last - first
    return reached


def _time(frames: int, rate: Fraction) -> str:
    """A number of frames in seconds: `1001/30000s`."""
    seconds = frames / rate
    return f"{seconds.numerator}/{seconds.denominator}s" if seconds.denominator > 1 else f"{seconds.numerator}s"


def _plain(text: str) -> str:
    return text.translate(BARE)
