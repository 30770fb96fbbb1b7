"""Results in the formats of other programs: lists of everything; captions, chapters and edits of one run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from urllib.parse import quote

from flask import Response
from sqlalchemy import Engine

from api.http.context import get_services
from api.http.problems import bad_query
from api.results.formats.edits import Edit, render_edl, render_otio
from api.results.formats.fcpxml import render_fcpxml
from api.results.formats.text import render_csv, render_ffmetadata, render_json_lines, render_srt, render_web_vtt
from api.results.selection import EVERY_ROW, select_run
from shared.catalog import CATALOG
from shared.store import results
from shared.store.results import RunResult
from shared.store.videos import videos
from shared.values import Job

PAGE_ROWS = 2_000
"""Rows that are read at a time for a list of everything."""
SEQUENTIAL_KINDS = ("highlight", "scene", "shot", "segment")
"""Kinds whose results do not overlap. Without a kind in the request, the first of these that the model has is used."""


@dataclass(frozen=True, slots=True)
class ExportFormat:
    """A format for the results of one run."""

    media_type: str
    write: Callable[[Edit], str]


EXPORT_FORMATS = {
    "vtt": ExportFormat("text/vtt", lambda edit: render_web_vtt(edit.rows)),
    "srt": ExportFormat("application/x-subrip", lambda edit: render_srt(edit.rows)),
    "ffmetadata": ExportFormat("text/plain", lambda edit: render_ffmetadata(edit.rows, edit.video.name)),
    "edl": ExportFormat("text/plain", render_edl),
    "fcpxml": ExportFormat("application/xml", render_fcpxml),
    "otio": ExportFormat("application/vnd.pixar.opentimelineio+json", render_otio),
}
LIST_FORMATS = {"jsonl": ("application/x-ndjson", render_json_lines), "csv": ("text/csv", render_csv)}
MEDIA_TYPES = sorted(
    {form.media_type for form in EXPORT_FORMATS.values()} | {media_type for media_type, _ in LIST_FORMATS.values()}
)


def export_list(job: Job, format_name: str, *, model: str | None, run_id: str | None, kind: str | None) -> Response:
    """Stream every result of the finished runs; memory does not grow with their number."""
    media_type, write = LIST_FORMATS[format_name]
    rows = _iter_all_results(get_services().engine, job.id, model, run_id, kind)
    return _send_as_download(Response(write(rows), mimetype=media_type), f"{job.id}.{format_name}")


def _iter_all_results(
    engine: Engine, job_id: str, model: str | None, run_id: str | None, kind: str | None
) -> Iterator[RunResult]:
    after = None
    while True:
        result_rows = results.list_results(
            engine, job_id, model=model, kind=kind, run_id=run_id, limit=PAGE_ROWS, after=after
        )
        yield from result_rows
        if len(result_rows) < PAGE_ROWS:
            return
        after = result_rows[-1].cursor


def export_run(job: Job, format_name: str, *, model: str | None, run_id: str | None, kind: str | None) -> Response:
    """Export the highlights, scenes, shots or segments of one finished run."""
    if kind is not None and kind not in SEQUENTIAL_KINDS:
        raise bad_query("kind", "not_in_this_format", f"format={format_name} is for {', '.join(SEQUENTIAL_KINDS)}.")
    kinds = (kind,) if kind else SEQUENTIAL_KINDS
    models = [spec.name for spec in CATALOG.values() if set(kinds) & set(spec.results)]
    run = select_run(job, model, run_id, models, f"{kind}s" if kind else "results that lie one after the other")
    chosen_kind = next(candidate_kind for candidate_kind in kinds if candidate_kind in CATALOG[run.model].results)
    rows = results.list_results(get_services().engine, job.id, run_id=run.id, kind=chosen_kind, limit=EVERY_ROW)
    video = videos.get_video(get_services().engine, job.video_id)
    origin = {"run_id": run.id, "model": run.model, "weights": run.weights, "params": run.params}
    body = EXPORT_FORMATS[format_name].write(Edit(video, rows, chosen_kind == "highlight", origin))
    stem = video.name.rpartition(".")[0] or video.name
    return _send_as_download(
        Response(body, mimetype=EXPORT_FORMATS[format_name].media_type), f"{stem} {chosen_kind}s.{format_name}"
    )


def _send_as_download(response: Response, name: str) -> Response:
    """Let the browser save the response under that name (RFC 6266, RFC 8187 where it is not ASCII)."""
    disposition = {"filename": name} if name.isascii() else {"filename*": f"UTF-8''{quote(name, safe='')}"}
    response.headers.set("Content-Disposition", "attachment", **disposition)
    return response
