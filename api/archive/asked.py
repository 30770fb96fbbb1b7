"""Requests for work on many films: what they may say, and what they ask for, checked before anything is written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

from pydantic import Field

from api.errors import Body
from api.jobs.asked import AnalysisBody, Label, LabelName, analyses_of
from api.service.catalog import check_open, check_served
from api.service.health import services
from shared.errors import FieldError, InvalidRequest, NotFound, leaves
from shared.store import workers
from shared.store.archive import planning
from shared.store.plan import Analysis
from shared.values.archive.batches import USUAL_CAP, CatchUp, Only, Selection, Work
from shared.values.archive.timetable import Hours

OF_DAY = r"^([01][0-9]|2[0-3]):[0-5][0-9]$"
ONLY = (
    "`missing`: no run of the model is done (one that found nothing is); `outdated`: none of the done ones has the "
    "weights and parameters of now; `failed`: the last run failed."
)


class SelectionBody(Body):
    """Which films: those of a source or named by id, where either is given, that have the labels, and that need it."""

    sources: list[str] = Field(default=[], max_length=1000, description="Ids of sources.")
    videos: list[str] = Field(default=[], max_length=10_000, description="Ids of videos.")
    labels: dict[LabelName, Label] = Field(
        default={}, max_length=64, description="Of a source that the film lies in, or of a job on it."
    )
    only: Only = Field("all", description=ONLY)
    code: str | None = Field(None, description="With `failed`: with this error code.")


class HoursBody(Body):
    """A window of hours each day in which jobs may start; `since` later than `until` reaches over midnight."""

    since: str = Field(pattern=OF_DAY, description="HH:MM")
    until: str = Field(pattern=OF_DAY, description="HH:MM, exclusive.")
    timezone: str = Field("UTC", max_length=64, description="Such as Europe/Berlin.")


class WorkBody(Body):
    """What is done with which films, and how many at a time."""

    analyses: list[AnalysisBody] = Field(min_length=1, max_length=32)
    selection: SelectionBody = SelectionBody()
    priority: Literal["low", "normal", "high"] = Field("low", description="Of the jobs: below those people wait for.")
    cap: int | None = Field(
        USUAL_CAP, ge=1, le=100_000, description="Jobs that are unfinished at once at most; null: no limit."
    )
    hours: HoursBody | None = Field(None, description="When jobs may start; null: always.")
    labels: dict[LabelName, Label] = Field(default={}, max_length=64, description="Of the jobs.")


class BatchBody(WorkBody):
    """A batch."""

    name: str | None = Field(None, min_length=1, max_length=200, description="For people; absent: the models.")

    @property
    def title(self) -> str:
        """What it is called."""
        return self.name or ", ".join(dict.fromkeys(asked.model for asked in self.analyses))


class ScheduleBody(WorkBody):
    """A schedule: when, and what."""

    name: str = Field(min_length=1, max_length=200)
    cron: str | None = Field(None, max_length=200, description="Five fields; or an interval in `every_s`.")
    every_s: int | None = Field(None, le=366 * 86_400, description="Seconds between two slots; or `cron`.")
    timezone: str = Field("UTC", max_length=64, description="In which cron is read, such as Europe/Berlin.")
    catch_up: CatchUp = Field(
        "once",
        description="After a time in which nothing ran: `skip` what was missed, make up for it `once`, or `all`.",
    )


def work_of(body: WorkBody, *, only: Only | None = None) -> Work:
    """The work that is asked for; InvalidRequest names all faults at once, NotFound what the selection names in vain.

    Args:
        body: as it came.
        only: which films are meant where the selection does not say.
    """
    analyses, hours, _ = together(
        lambda: analyses_of(body), lambda: hours_of(body.hours), lambda: _check_code(body.selection)
    )
    said = body.selection
    selection = Selection(
        sources=tuple(said.sources),
        videos=tuple(said.videos),
        labels=dict(said.labels),
        only=only if only and "only" not in said.model_fields_set else said.only,
        code=said.code,
    )
    _check_there(selection)
    return Work(
        analyses=tuple((one.model, one.params.model_dump(mode="json")) for one in analyses),
        selection=selection,
        priority=body.priority,
        cap=body.cap,
        hours=hours,
        labels=dict(body.labels),
    )


def hours_of(body: HoursBody | None) -> Hours | None:
    """The window of hours; InvalidRequest."""
    if body is None:
        return None
    try:
        return Hours.read(body.model_dump())
    except InvalidRequest as error:
        raise _below(error, "/hours") from None


def together(*checks: Callable[[], Any]) -> list[Any]:
    """What each of them gives; InvalidRequest with the faults of all of them."""
    found, faults = [], []
    for check in checks:
        try:
            found.append(check())
        except InvalidRequest as error:
            faults.append(error)
    if faults:
        detail = faults[0].detail if len(faults) == 1 else "Several things are not valid; see `errors`."
        raise InvalidRequest(detail, errors=tuple(fault for error in faults for fault in error.errors))
    return found


def check_can_run(work: Work, *, new: bool = True) -> None:
    """Refuse what no worker could do now, and what would fill a queue that is being drained.

    Args:
        work: checked against the menu.
        new: it is to be done now: a queue that is being drained refuses it.

    Raises:
        WeightsMissing, WeightsCorrupt, ModelUnavailable: the same as for a job.
    """
    analyses: Sequence[Analysis] = planning.asked(work)
    check_served(analyses, workers.all(services().engine))
    if new:
        check_open(services().engine, analyses)


def _below(error: InvalidRequest, place: str) -> InvalidRequest:
    """The same faults, at a place of the body."""
    errors = tuple(
        FieldError(f"{place}{fault.pointer.removeprefix(place)}", fault.code, fault.detail) for fault in error.errors
    )
    return InvalidRequest(error.detail, errors=errors)


def _check_code(said: SelectionBody) -> None:
    if said.code is None:
        return
    if said.only != "failed":
        raise _fault("/selection/code", "not_failed", "A code goes with `only`: failed.")
    if said.code not in leaves():
        raise _fault("/selection/code", "unknown_code", f"Codes are: {', '.join(sorted(leaves()))}.")


def _check_there(selection: Selection) -> None:
    sources, videos = planning.unknown(services().engine, selection)
    faults = [
        FieldError(f"/selection/{kind}/{named.index(one)}", "not_found", f"There is no such {kind[:-1]}.")
        for kind, named, absent in (("sources", selection.sources, sources), ("videos", selection.videos, videos))
        for one in absent
    ]
    if faults:
        raise NotFound(faults[0].detail, errors=tuple(faults))


def _fault(pointer: str, code: str, detail: str) -> InvalidRequest:
    return InvalidRequest(detail, errors=(FieldError(pointer, code, detail),))
