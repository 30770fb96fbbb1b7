from __future__ import annotations

import pytest

from shared.catalog import CATALOG, ShotsParams, get_model_spec, parse_model_names
from shared.errors import InvalidRequest, SceneworksError, errors_by_code
from shared.values import JobState, Progress, RunState, Stage, derive_job_state, new_id, parse_labels

DONE, FAILED, RUNNING = (RunState.DONE, False), (RunState.FAILED, False), (RunState.RUNNING, False)
QUEUED, WAITING, SKIPPED = (RunState.QUEUED, False), (RunState.WAITING, False), (RunState.SKIPPED, False)

CODES = """
invalid_request not_found conflict idempotency_mismatch unsupported_media no_video_stream media_corrupt video_too_long
video_too_large source_unreachable source_forbidden model_unavailable weights_missing weights_corrupt out_of_memory
deadline_exceeded worker_lost poison_run storage_full rate_limited unauthorized forbidden internal
"""


@pytest.mark.parametrize(
    ("runs", "cancelled", "state"),
    [
        ([QUEUED, WAITING], False, JobState.QUEUED),
        ([RUNNING, WAITING], False, JobState.RUNNING),
        ([DONE, QUEUED], False, JobState.RUNNING),
        ([FAILED, RUNNING], False, JobState.RUNNING),
        ([DONE, DONE], False, JobState.SUCCEEDED),
        ([DONE, FAILED], False, JobState.FAILED),
        ([FAILED, SKIPPED], False, JobState.FAILED),
        ([(RunState.RUNNING, True)], True, JobState.CANCELLING),
        ([(RunState.CANCELLED, True)], True, JobState.CANCELLED),
        ([RUNNING], True, JobState.CANCELLED),  # the run goes on for another job
    ],
)
def test_job_state_follows_from_its_runs(runs: list[tuple[RunState, bool]], cancelled: bool, state: JobState) -> None:
    assert derive_job_state(runs, cancelled) is state


def test_error_codes_are_a_closed_list() -> None:
    assert set(errors_by_code()) == set(CODES.split())


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    import shared.errors as module

    for code, kind in errors_by_code().items():
        line = next(line for line in str(module.__doc__).splitlines() if f" {kind.__name__} " in line)
        assert code in line.split()
        assert str(kind.status) in line.split()


def test_a_problem_has_the_members_of_rfc_9457() -> None:
    problem = SceneworksError("why").to_problem()
    assert {"type", "title", "status", "detail", "code", "retryable"} <= set(problem)


def test_equal_parameters_are_spelt_alike() -> None:
    assert ShotsParams().canonical_json() == ShotsParams(threshold=0.50, detector="transnetv2").canonical_json()
    assert ShotsParams(detector="hsv_luv").canonical_json() != ShotsParams().canonical_json()


def test_bad_parameters_are_named_by_pointer() -> None:
    with pytest.raises(InvalidRequest) as caught:
        get_model_spec("shots").read_params({"detector": "x", "nonsense": 1}, "/analyses/0/params")
    assert {(error.pointer, error.code) for error in caught.value.errors} == {
        ("/analyses/0/params/detector", "literal_error"),
        ("/analyses/0/params/nonsense", "unknown_parameter"),
    }


def test_weights_are_asked_for_only_by_those_who_use_them() -> None:
    assert CATALOG["shots"].weights_for(ShotsParams()) is CATALOG["shots"].weights
    assert CATALOG["shots"].weights_for(ShotsParams(detector="hsv_luv")) is None


def test_served_models() -> None:
    assert parse_model_names("*") == tuple(CATALOG)
    assert parse_model_names(" shots ,") == ("shots",)
    for wrong in ("nothing_like_it", " "):
        with pytest.raises(InvalidRequest):
            parse_model_names(wrong)


def test_ids_sort_by_age() -> None:
    ids = [new_id("run") for _ in range(1000)]
    assert ids == sorted(ids)
    assert len(set(ids)) == 1000


def test_eta_is_told_by_the_running_stage() -> None:
    stages = (Stage("plan", "done", 1, 1), Stage("encode", "running", 25, 100, "frame", seconds=5.0))
    assert Progress(stages).eta_s == 15.0
    assert Progress((Stage("encode", "running", 0, 100),)).eta_s is None


def test_labels() -> None:
    assert parse_labels(["show:x", "a:b:c"]) == {"show": "x", "a": "b:c"}
    with pytest.raises(ValueError, match="lonely"):
        parse_labels(["lonely"])
