"""The form for a batch: first what it would come to, then the batch, of exactly what was shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from apiflask import APIBlueprint
from flask import Response, render_template, request

from api.archive.asked import BatchBody, check_can_run, work_of
from api.errors import read_json
from api.service.health import services
from api.web.operate import sheet
from api.web.operate.board import to
from api.web.operate.sheet import Fault, Given
from shared.errors import InvalidRequest, SceneworksError, leaves
from shared.log import logger
from shared.store.archive import batches, planning, sources
from shared.store.archive.batches import NewBatch
from shared.store.archive.planning import Plan
from shared.values.archive.batches import Work

log = logger(__name__)
bp = APIBlueprint("asking", __name__, enable_openapi=False, url_prefix="/operator/batches")

KINDS = ("reprocess", "batch")


@bp.get("/new")
def blank() -> str:
    """An empty form, or one filled with the work of a batch (`?like=`)."""
    like = request.args.get("like")
    given = sheet.USUAL if like is None else _like(like)
    return drawn("asked.html", given)


@bp.post("/check")
def check() -> tuple[str, int]:
    """What it would come to; nothing is written. The form again, with its faults, where it cannot be done."""
    given = request.form.to_dict(flat=False)
    try:
        kind = _kind(given.get("kind", [""])[0])
        body = sheet.checked(BatchBody, sheet.batch(given))
        plan = planning.dry_run(services().engine, _work(body))
    except SceneworksError as error:
        return drawn("asked.html", given, faults=sheet.faults(error, given)), error.status
    return drawn("asked.html", given, plan=plan, kind=kind, asked=body.model_dump_json()), 200


@bp.post("")
def start() -> Response:
    """The batch that was shown."""
    body = sheet.checked(BatchBody, read_json(request.form.get("asked", "").encode()))
    kind = _kind(request.form.get("kind", ""))
    batch = batches.create(services().engine, NewBatch(body.title, _work(body), kind))
    log.info("batch.created", batch=batch.id, kind=batch.kind, videos=batch.videos)
    return to(f"/operator/batches/{batch.id}")


def drawn(template: str, given: Given, faults: Sequence[Fault] = (), plan: Plan | None = None, **more: Any) -> str:
    """The form with what was given, its faults, and what it would come to."""
    return render_template(
        template,
        given=given,
        faults=faults,
        marked={fault.field: fault.detail for fault in faults},
        plan=plan,
        menu=sheet.menu(given),
        sources=sources.all(services().engine),
        codes=[(code, code) for code in sorted(leaves())],
        **more,
    )


def _kind(said: str) -> str:
    if said not in KINDS:
        raise InvalidRequest(f"A batch is one of: {', '.join(KINDS)}.")
    return said


def _work(body: BatchBody) -> Work:
    """What is asked for, checked as the API checks it."""
    work = work_of(body)
    check_can_run(work)
    return work


def _like(batch_id: str) -> Given:
    """The form of a batch that there was."""
    batch = batches.get(services().engine, batch_id)
    kind = "batch" if batch.kind == "batch" else "reprocess"
    return sheet.of_work(batch.work) | {"name": [batch.name], "kind": [kind]}
