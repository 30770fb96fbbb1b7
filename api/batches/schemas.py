"""Bodies of requests for work on many videos, checked before anything is stored."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from pydantic import Field

from api.http.context import get_services
from api.http.schemas import Body
from api.jobs.schemas import AnalysisBody, Label, LabelName, parse_analyses
from shared.errors import FieldError, InvalidRequest, NotFound, errors_by_code
from shared.store.batches import selection as batches_selection
from shared.values.batches import DEFAULT_CAP, CatchUpPolicy, Selection, SelectionFilter, Workload
from shared.values.timetable import DailyHours

TIME_OF_DAY = r"^([01][0-9]|2[0-3]):[0-5][0-9]$"
ONLY_DOC = (
    "`missing`: no run of the model is done (one that found nothing is); `outdated`: none of the done ones has the "
    "weights and parameters of now; `failed`: the last run failed."
)


class SelectionBody(Body):
    """Which videos: of these sources or ids, where either is given, with these labels, and filtered by `only`."""

    sources: list[str] = Field(default=[], max_length=1000, description="Ids of sources.")
    videos: list[str] = Field(default=[], max_length=10_000, description="Ids of videos.")
    labels: dict[LabelName, Label] = Field(
        default={}, max_length=64, description="Of a source that holds the video, or of a job on it."
    )
    only: SelectionFilter = Field("all", description=ONLY_DOC)
    code: str | None = Field(None, description="With `failed`: with this error code.")


class HoursBody(Body):
    """A window of hours each day in which jobs may start; `since` later than `until` reaches over midnight."""

    since: str = Field(pattern=TIME_OF_DAY, description="HH:MM")
    until: str = Field(pattern=TIME_OF_DAY, description="HH:MM, exclusive.")
    timezone: str = Field("UTC", max_length=64, description="Such as Europe/Berlin.")


class WorkBody(Body):
    """The models to run, on which videos, and how many at a time."""

    analyses: list[AnalysisBody] = Field(min_length=1, max_length=32)
    selection: SelectionBody = SelectionBody()
    priority: Literal["low", "normal", "high"] = Field("low", description="Of the jobs: below those people wait for.")
    cap: int | None = Field(
        DEFAULT_CAP, ge=1, le=100_000, description="Jobs that are unfinished at once at most; null: no limit."
    )
    hours: HoursBody | None = Field(None, description="When jobs may start; null: always.")
    labels: dict[LabelName, Label] = Field(default={}, max_length=64, description="Of the jobs.")


class BatchBody(WorkBody):
    """A batch."""

    name: str | None = Field(None, min_length=1, max_length=200, description="For people; absent: the models.")

    @property
    def title(self) -> str:
        """The name; without one, the models."""
        return self.name or ", ".join(dict.fromkeys(analysis.model for analysis in self.analyses))


class ScheduleBody(WorkBody):
    """A schedule: the timetable and the work."""

    name: str = Field(min_length=1, max_length=200)
    cron: str | None = Field(None, max_length=200, description="Five fields; or an interval in `every_s`.")
    every_s: int | None = Field(None, le=366 * 86_400, description="Seconds between two slots; or `cron`.")
    timezone: str = Field("UTC", max_length=64, description="In which cron is read, such as Europe/Berlin.")
    catch_up: CatchUpPolicy = Field(
        "once",
        description="After a time in which nothing ran: `skip` what was missed, make up for it `once`, or `all`.",
    )


def parse_work(body: WorkBody, *, only: SelectionFilter | None = None) -> Workload:
    """Read the work of a request; InvalidRequest names all faults at once, NotFound the unknown ids of the selection.

    Args:
        body: the request.
        only: which videos are selected where the selection does not say.
    """
    analyses, hours, _ = collect_faults(
        lambda: parse_analyses(body), lambda: parse_hours(body.hours), lambda: _check_error_code(body.selection)
    )
    selection_body = body.selection
    selection = Selection(
        sources=tuple(selection_body.sources),
        videos=tuple(selection_body.videos),
        labels=dict(selection_body.labels),
        only=only if only and "only" not in selection_body.model_fields_set else selection_body.only,
        code=selection_body.code,
    )
    _check_selection_exists(selection)
    return Workload(
        analyses=tuple((analysis.model, analysis.params.model_dump(mode="json")) for analysis in analyses),
        selection=selection,
        priority=body.priority,
        cap=body.cap,
        hours=hours,
        labels=dict(body.labels),
    )


def parse_hours(body: HoursBody | None) -> DailyHours | None:
    """Read the daily hours; InvalidRequest."""
    if body is None:
        return None
    try:
        return DailyHours.from_dict(body.model_dump())
    except InvalidRequest as error:
        raise _prefix_pointers(error, "/hours") from None


def collect_faults(*checks: Callable[[], Any]) -> list[Any]:
    """Run all checks and return their values; InvalidRequest with the faults of all of them."""
    values, faults = [], []
    for check in checks:
        try:
            values.append(check())
        except InvalidRequest as error:
            faults.append(error)
    if faults:
        detail = faults[0].detail if len(faults) == 1 else "Several things are not valid; see `errors`."
        raise InvalidRequest(detail, errors=tuple(fault for error in faults for fault in error.errors))
    return values


def _prefix_pointers(error: InvalidRequest, prefix: str) -> InvalidRequest:
    """Build the error with its pointers below `prefix`."""
    errors = tuple(
        FieldError(f"{prefix}{fault.pointer.removeprefix(prefix)}", fault.code, fault.detail) for fault in error.errors
    )
    return InvalidRequest(error.detail, errors=errors)


def _check_error_code(selection: SelectionBody) -> None:
    if selection.code is None:
        return
    if selection.only != "failed":
        raise InvalidRequest.at("/selection/code", "not_failed", "A code goes with `only`: failed.")
    if selection.code not in errors_by_code():
        raise InvalidRequest.at("/selection/code", "unknown_code", f"Codes are: {', '.join(sorted(errors_by_code()))}.")


def _check_selection_exists(selection: Selection) -> None:
    sources, videos = batches_selection.find_unknown_ids(get_services().engine, selection)
    faults = [
        FieldError(
            f"/selection/{kind}/{requested_ids.index(missing_id)}", "not_found", f"There is no such {kind[:-1]}."
        )
        for kind, requested_ids, missing_ids in (
            ("sources", selection.sources, sources),
            ("videos", selection.videos, videos),
        )
        for missing_id in missing_ids
    ]
    if faults:
        raise NotFound(faults[0].detail, errors=tuple(faults))
