"""The rule from runs to the state of a job, for every SQL statement that lists or counts jobs.

`shared.values.derive_job_state` is the same rule for runs that are in memory; a test compares the two over all pairs of
run states. Here the rule exists once, as conditions over a few flags ("any run of the job is live"). Statements get the
flags in one of two ways, since no single way is fast for both:

- `build_state_filter`: one EXISTS a flag. A list of jobs in a rare state is then read from the indexes of live, running
  and failed runs, and stops once its page is full.
- `AGGREGATED_FLAGS` with `build_state_case`: all flags of all jobs in one pass. A batch or the metrics need every job.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from sqlalchemy import TextClause, text

from shared.values import JobState

# The states are literals, not parameters: only a literal lets a cached plan use the partial indexes of `runs`.
RUN_FLAGS: Mapping[str, str] = {
    "live": "runs.state IN ('waiting', 'queued', 'running')",
    "started": "runs.state NOT IN ('waiting', 'queued')",
    "failed": "runs.state = 'failed'",
    "stopping": "runs.state = 'running' AND runs.cancel_requested",
    "not_done": "runs.state <> 'done'",
}
"""Name of a flag -> the condition that at least one run of the job has to meet."""

STATE_CONDITIONS: Mapping[JobState, str] = {
    JobState.QUEUED: "NOT {cancelled} AND {live} AND NOT {started}",
    JobState.RUNNING: "NOT {cancelled} AND {live} AND {started}",
    JobState.CANCELLING: "{cancelled} AND {stopping}",
    JobState.SUCCEEDED: "NOT {cancelled} AND NOT {not_done}",
    JobState.FAILED: "NOT {cancelled} AND NOT {live} AND {failed}",
    JobState.CANCELLED: (
        "(({cancelled} AND NOT {stopping}) OR (NOT {cancelled} AND {not_done} AND NOT {live} AND NOT {failed}))"
    ),
}
"""The rule: exactly one condition holds for a job. `cancelled`: the owner of the job has cancelled it."""

AGGREGATED_FLAGS = ", ".join(f"bool_or({condition}) AS {name}" for name, condition in RUN_FLAGS.items())
"""Columns of a SELECT over `runs` that is grouped by job."""


def build_state_case(flags: str, cancelled_at: str) -> str:
    """Build the SQL of a job's state from its aggregated flags.

    Args:
        flags: alias of the subquery with `AGGREGATED_FLAGS`. It may be left-joined: without a row no flag is set.
        cancelled_at: the column of the job.
    """
    names = {name: f"coalesce({flags}.{name}, false)" for name in RUN_FLAGS}
    names["cancelled"] = f"({cancelled_at} IS NOT NULL)"
    branches = (
        f"WHEN {condition.format(**names)} THEN '{state.value}'" for state, condition in STATE_CONDITIONS.items()
    )
    return f"CASE {' '.join(branches)} END"


def build_state_filter(states: Iterable[JobState]) -> TextClause:
    """Build a condition on `jobs`: the job is in one of the states."""
    names = {name: _build_exists(condition) for name, condition in RUN_FLAGS.items()}
    names["cancelled"] = "(jobs.cancelled_at IS NOT NULL)"
    conditions = [f"({STATE_CONDITIONS[state].format(**names)})" for state in sorted(states)]
    return text(f"({' OR '.join(conditions) or 'false'})")


def _build_exists(condition: str) -> str:
    return (
        "EXISTS (SELECT 1 FROM job_runs JOIN runs ON runs.id = job_runs.run_id "  # noqa: S608 (only constants go in)
        f"WHERE job_runs.job_id = jobs.id AND {condition})"
    )
