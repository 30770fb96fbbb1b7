"""The same verbs, all at once: real connections, real locks."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar

import pytest
from sqlalchemy import Engine, text

from shared import catalog
from shared.catalog import ModelSpec, Params
from shared.errors import Conflict
from shared.store.jobs import jobs
from shared.store.jobs.jobs import NewJob
from shared.store.runs import runs, sweep
from shared.store.runs.runs import Claim
from shared.values import JobState, Progress, RunState, WakeUp
from tests.support import factories

T = TypeVar("T")


def _at_once(count: int, action: Callable[[int], T]) -> list[T]:
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(action, range(count)))


@pytest.fixture
def family(monkeypatch: pytest.MonkeyPatch) -> None:
    """A menu with a model that needs two others: what scenes and summaries will be."""
    for name, needs in (("left", ()), ("right", ()), ("both", ("left", "right")), ("grandchild", ("both",))):
        spec = ModelSpec(name, name, "", "", Params, needs, (), (), None)
        monkeypatch.setitem(catalog.CATALOG, name, spec)


def _done(database: Engine, claim: Claim) -> tuple[WakeUp, ...]:
    wakes = runs.finish_run(database, claim, progress=Progress(), decode_failures=0, results=[], artifacts=[])
    assert wakes is not None
    return wakes


def test_a_hundred_equal_posts_are_one_job(database: Engine) -> None:
    video = factories.add_video(database)
    request = NewJob(video.id, (factories.make_analysis(),), idempotency_key="k", request_sha256="a")
    created = _at_once(10, lambda _: [jobs.create_job(database, request) for _ in range(10)])
    every = [one for batch in created for one in batch]
    assert len({one.job.id for one in every}) == 1
    assert sum(not one.replayed for one in every) == 1
    assert sum(len(one.wakeups) for one in every) == 1


def test_twins_made_at_once_are_one_run(database: Engine) -> None:
    video = factories.add_video(database)
    made = _at_once(10, lambda _: factories.create_job(database, video.id))
    assert len({job.id for job in made}) == 10
    assert len({job.runs[0].id for job in made}) == 1
    assert sum(not job.runs[0].reused for job in made) == 1


def test_one_message_delivered_ten_times_is_claimed_once(database: Engine) -> None:
    run_id = factories.create_job(database).runs[0].id
    claims = _at_once(10, lambda n: factories.claim_run(database, run_id, f"worker-{n}"))
    assert sum(claim is not None for claim in claims) == 1


@pytest.mark.usefixtures("family")
def test_needs_that_end_at_the_same_moment_free_their_dependant_once(database: Engine) -> None:
    for _ in range(15):
        job = factories.create_job(database, analyses=(factories.make_analysis("both"),))
        assert [run.state for run in job.runs] == [RunState.QUEUED, RunState.QUEUED, RunState.WAITING]
        claims = [factories.claim_run(database, run.id) for run in job.runs[:2]]
        wakes = _at_once(2, lambda n: _done(database, claims[n]))  # type: ignore[arg-type] # noqa: B023
        assert [wake.run_id for each in wakes for wake in each] == [job.runs[2].id]
        assert jobs.get_job(database, job.id).runs[2].state is RunState.QUEUED


@pytest.mark.usefixtures("family")
def test_a_job_made_while_its_need_ends_never_waits_for_ever(database: Engine) -> None:
    for _ in range(15):
        video = factories.add_video(database)
        first = factories.create_job(
            database, video.id, analyses=(factories.make_analysis("left"), factories.make_analysis("right"))
        )
        claims = [factories.claim_run(database, run.id) for run in first.runs]
        assert claims[1] is not None
        _done(database, claims[1])

        def act(n: int) -> object:
            if n:
                return _done(database, claims[0])  # type: ignore[arg-type] # noqa: B023
            return factories.create_job(database, video.id, analyses=(factories.make_analysis("both"),))  # noqa: B023

        _at_once(2, act)
        [both] = [run for job in jobs.list_jobs(database, limit=1) for run in job.runs if run.model == "both"]
        assert both.state is RunState.QUEUED


@pytest.mark.usefixtures("family")
def test_a_failed_need_skips_all_that_wait_for_it(database: Engine) -> None:
    job = factories.create_job(database, analyses=(factories.make_analysis("grandchild"),))
    claim = factories.claim_run(database, job.runs[0].id)
    assert claim is not None
    runs.fail_run(database, claim, {"code": "media_corrupt"}, retry=False, backoff_s=0)
    states = {run.model: run.state for run in jobs.get_job(database, job.id).runs}
    assert states == {
        "left": RunState.FAILED,
        "right": RunState.QUEUED,
        "both": RunState.SKIPPED,
        "grandchild": RunState.SKIPPED,
    }


@pytest.mark.usefixtures("family")
def test_a_need_takes_the_parameters_that_the_request_gives_it(
    database: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(catalog.CATALOG, "child", ModelSpec("child", "", "", "", Params, ("shots",), (), (), None))
    asked = (factories.make_analysis("child"), factories.make_analysis("shots", detector="hsv_luv"))
    job = factories.create_job(database, analyses=asked)
    assert [(run.model, run.requested) for run in job.runs] == [("shots", True), ("child", True)]
    assert job.runs[0].params["detector"] == "hsv_luv"


def _cancel(database: Engine, job_id: str) -> None:
    with suppress(Conflict):  # the finish came first
        jobs.cancel_job(database, job_id)


def test_cancel_racing_finish_ends_one_way(database: Engine) -> None:
    for _ in range(12):
        job = factories.create_job(database)
        claim = factories.claim_run(database, job.runs[0].id)
        assert claim is not None
        with ThreadPoolExecutor(2) as pool:
            cancelled = pool.submit(_cancel, database, job.id)
            finished = pool.submit(_done, database, claim)
            cancelled.result()
            finished.result()
        run = jobs.get_job(database, job.id).runs[0]
        assert run.state is RunState.DONE  # work that was done is kept, whoever was first
        assert jobs.get_job(database, job.id).state in {JobState.SUCCEEDED, JobState.CANCELLED}


def test_deleting_and_sharing_at_once_never_takes_a_run_from_a_job(database: Engine) -> None:
    for _ in range(12):
        video = factories.add_video(database)
        old = factories.create_job(database, video.id)
        claim = factories.claim_run(database, old.runs[0].id)
        assert claim is not None
        _done(database, claim)
        made = _at_once(
            2,
            lambda n: jobs.delete_job(database, old.id) if n else factories.create_job(database, video.id),  # noqa: B023
        )[0]
        assert made is not None
        assert len(jobs.get_job(database, made.id).runs) == 1


def test_many_sweeps_at_once_free_each_run_once(database: Engine) -> None:
    for _ in range(20):
        factories.claim_run(database, factories.create_job(database).runs[0].id)
    with database.begin() as connection:
        connection.execute(text("UPDATE runs SET lease_until = now() - interval '1 s'"))
    freed = _at_once(4, lambda _: sweep.free_expired_runs(database))
    assert sum(len(each) for each in freed) == 20
    sent = _at_once(4, lambda _: sweep.take_runs_to_send(database, {}, {}, 10))
    assert sum(len(each) for each in sent) == 20
