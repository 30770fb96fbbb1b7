"""Choose the run that a format is about: the one that is named, or the only one that fits."""

from __future__ import annotations

from collections.abc import Collection

from api.http.problems import bad_query
from shared.catalog import CATALOG
from shared.values import Job, Run, RunState

EVERY_ROW = 2**31 - 1


def check_run_filter(job: Job, model: str | None, run_id: str | None) -> None:
    """InvalidRequest for a model or a run that this job does not have, and for a run of another model."""
    if model is not None and model not in {run.model for run in job.runs}:
        raise bad_query("model", "unknown_model", "This job has no run of that model.")
    if run_id is not None and not any(run.id == run_id and model in {None, run.model} for run in job.runs):
        raise bad_query("run_id", "unknown_run", "This job has no such run.")


def list_finished_runs(job: Job, kind: str) -> list[Run]:
    """List the finished runs of a job with results of that kind, in the order of the job."""
    return [run for run in job.runs if run.state is RunState.DONE and has_result_kind(run.model, kind)]


def has_result_kind(model: str, kind: str) -> bool:
    """Whether a model in the catalog has results of that kind."""
    return model in CATALOG and kind in CATALOG[model].results


def select_run(job: Job, model: str | None, run_id: str | None, models: Collection[str], description: str) -> Run:
    """Select the finished run of one of `models` that a request is about.

    The model may be omitted where only one of the job has the format; without a run id the first finished run is taken.

    Args:
        job: its runs are in the order of the request.
        model, run_id: as the request names them.
        models: names of those that have the format.
        description: the format in words, for the error.

    Raises:
        InvalidRequest: the model or the run has no such format, none is finished, or several models have it.
    """
    check_run_filter(job, model, run_id)
    matching_runs = [run for run in job.runs if run_id in {None, run.id} and model in {None, run.model}]
    fitting_models = list(dict.fromkeys(run.model for run in matching_runs if run.model in models))
    if not fitting_models and (model or run_id):
        parameter, name = ("model", model) if model else ("run_id", matching_runs[0].model)
        raise bad_query(parameter, "not_of_this_model", f"{name} has no {description}.")
    if len(fitting_models) > 1:
        raise bad_query(
            "model", "ambiguous_model", f"Several models of this job have {description}: {', '.join(fitting_models)}."
        )
    run = next((run for run in matching_runs if run.state is RunState.DONE and run.model in models), None)
    if run is None:
        raise bad_query("format", "nothing_yet", f"This job has no finished run with {description}.")
    return run
