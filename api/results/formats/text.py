"""Results as lists: JSON lines and CSV of any kind, captions and chapters of what lies in time.

WebVTT: https://www.w3.org/TR/webvtt1/. Chapters: FFmpeg's metadata format, ffmpeg-formats(1) `ffmetadata`.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from shared.store.results import RunResult
from shared.values import TimeRange, format_clock_time

TIMES = ("frame", "seconds", "pts", "timecode")
COLUMNS = ["model", "kind", "seq", *(f"{end}_{name}" for end in ("start", "end") for name in TIMES)]
COLUMNS += ["score", "data", "run_id"]


def build_result_record(row: RunResult) -> dict[str, Any]:
    """One result as every answer gives it."""
    return row.result.to_dict() | {"run_id": row.run_id, "model": row.model}


def render_json_lines(rows: Iterable[RunResult]) -> Iterator[str]:
    """One object a line, the same as the items of a page."""
    return (json.dumps(build_result_record(row), ensure_ascii=False) + "\n" for row in rows)


def render_csv(rows: Iterable[RunResult]) -> Iterator[str]:
    """RFC 4180 with a header; `data` is JSON."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(COLUMNS)
    for row in rows:
        fields = build_result_record(row)
        times = [(fields[end] or {}).get(name) for end in ("start", "end") for name in TIMES]
        data = json.dumps(fields["data"], ensure_ascii=False)
        writer.writerow(
            [fields["model"], fields["kind"], fields["seq"], *times, fields["score"], data, fields["run_id"]]
        )
        yield out.getvalue()
        out.seek(0)
        out.truncate()
    yield out.getvalue()


def format_title(row: RunResult) -> str:
    """`Scene 3`: for people, who count from one."""
    return f"{row.result.kind.capitalize()} {row.result.seq + 1}"


def iter_spans(rows: Sequence[RunResult]) -> Iterator[tuple[RunResult, TimeRange]]:
    """Iterate over rows with their ranges in the video; ValueError for a row without a range."""
    for row in rows:
        if row.result.range is None:
            raise ValueError(f"{row.result.kind} {row.result.seq} of {row.run_id} has no times")
        yield row, row.result.range


def render_web_vtt(rows: Sequence[RunResult]) -> str:
    """Render WebVTT: a cue for each row at its place in the video, to the millisecond."""
    cues = [
        f"{row.result.seq + 1}\n{format_clock_time(span.start.seconds)} --> {format_clock_time(span.end.seconds)}\n"
        f"{format_title(row)}\n"
        for row, span in iter_spans(rows)
    ]
    return "\n".join(["WEBVTT\n", *cues])


def render_srt(rows: Sequence[RunResult]) -> str:
    """Render SubRip: numbered cues, with decimal commas."""
    cues = []
    for number, (row, span) in enumerate(iter_spans(rows), 1):
        start, end = (format_clock_time(moment.seconds).replace(".", ",") for moment in (span.start, span.end))
        cues.append(f"{number}\n{start} --> {end}\n{format_title(row)}\n")
    return "\n".join(cues)


def render_ffmetadata(rows: Sequence[RunResult], name: str) -> str:
    """Render FFmetadata: a chapter for each row, exact in ticks of the video's own clock since its first frame."""
    parts = [f";FFMETADATA1\ntitle={_escape_text(name)}\n"]
    for row, span in iter_spans(rows):
        clock = span.start.clock
        first, last = (moment.pts - clock.start_pts for moment in (span.start, span.end))
        ticks = f"{clock.time_base.numerator}/{clock.time_base.denominator}"
        parts.append(f"[CHAPTER]\nTIMEBASE={ticks}\nSTART={first}\nEND={last}\ntitle={format_title(row)}\n")
    return "\n".join(parts)


def _escape_text(text: str) -> str:
    return re.sub(r"([=;#\\\n])", r"\\\1", text)
