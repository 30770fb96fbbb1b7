"""Results in the forms of other programs: lists of everything, and captions, chapters and edits of one run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from urllib.parse import quote

from flask import Response
from sqlalchemy import Engine

from api.errors import bad_query
from api.results.chosen import EVERY_ROW, run_of
from api.results.edits import Edit, edit_list, timeline_json
from api.results.fcpxml import final_cut
from api.results.lists import chapters, comma_separated, json_lines, sub_rip, web_vtt
from api.service.health import services
from shared.catalog import MENU
from shared.store import results, videos
from shared.store.results import Found
from shared.values import Job

BATCH = 2_000
"""Rows read at a time where all of them go out."""
KINDS = ("highlight", "scene", "shot", "segment")
"""Results that lie in time one after the other; where none is asked for, the first of these that the model has."""


@dataclass(frozen=True, slots=True)
class Form:
    """One form for the rows of one run."""

    media_type: str
    write: Callable[[Edit], str]


FORMS = {
    "vtt": Form("text/vtt", lambda edit: web_vtt(edit.rows)),
    "srt": Form("application/x-subrip", lambda edit: sub_rip(edit.rows)),
    "ffmetadata": Form("text/plain", lambda edit: chapters(edit.rows, edit.video.name)),
    "edl": Form("text/plain", edit_list),
    "fcpxml": Form("application/xml", final_cut),
    "otio": Form("application/vnd.pixar.opentimelineio+json", timeline_json),
}
LISTS = {"jsonl": ("application/x-ndjson", json_lines), "csv": ("text/csv", comma_separated)}
MEDIA_TYPES = sorted({form.media_type for form in FORMS.values()} | {media_type for media_type, _ in LISTS.values()})


def listed(job: Job, form: str, *, model: str | None, run_id: str | None, kind: str | None) -> Response:
    """Every result of the finished runs, written as it is read: memory does not grow with their number."""
    media_type, write = LISTS[form]
    rows = _every(services().engine, job.id, model, run_id, kind)
    return _file(Response(write(rows), mimetype=media_type), f"{job.id}.{form}")


def _every(engine: Engine, job_id: str, model: str | None, run_id: str | None, kind: str | None) -> Iterator[Found]:
    after = None
    while True:
        found = results.page(engine, job_id, model=model, kind=kind, run_id=run_id, limit=BATCH, after=after)
        yield from found
        if len(found) < BATCH:
            return
        after = found[-1].cursor


def exported(job: Job, form: str, *, model: str | None, run_id: str | None, kind: str | None) -> Response:
    """The highlights, scenes, shots or segments of one finished run."""
    if kind is not None and kind not in KINDS:
        raise bad_query("kind", "not_in_this_format", f"format={form} is for {', '.join(KINDS)}.")
    kinds = (kind,) if kind else KINDS
    models = [spec.name for spec in MENU.values() if set(kinds) & set(spec.results)]
    run = run_of(job, model, run_id, models, f"{kind}s" if kind else "results that lie one after the other")
    chosen = next(one for one in kinds if one in MENU[run.model].results)
    rows = results.page(services().engine, job.id, run_id=run.id, kind=chosen, limit=EVERY_ROW)
    video = videos.get(services().engine, job.video_id)
    origin = {"run_id": run.id, "model": run.model, "weights": run.weights, "params": run.params}
    said = FORMS[form].write(Edit(video, rows, chosen == "highlight", origin))
    stem = video.name.rpartition(".")[0] or video.name
    return _file(Response(said, mimetype=FORMS[form].media_type), f"{stem} {chosen}s.{form}")


def _file(response: Response, name: str) -> Response:
    """To be saved under that name (RFC 6266, and RFC 8187 where it is not ASCII)."""
    said = {"filename": name} if name.isascii() else {"filename*": f"UTF-8''{quote(name, safe='')}"}
    response.headers.set("Content-Disposition", "attachment", **said)
    return response
