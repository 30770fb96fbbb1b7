"""Process one run from claim to finish: the only place where the database, files and queue meet the pure pipeline."""

from __future__ import annotations

import errno
import os
import signal
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import structlog
import torch
from sqlalchemy.exc import OperationalError

from shared.catalog import CATALOG, Params
from shared.errors import Internal, OutOfMemory, SceneworksError, SourceUnreachable, StorageFull, is_retryable
from shared.log import get_logger
from shared.queue import publish_wakeup, publish_wakeups
from shared.store import results
from shared.store.runs import runs
from shared.store.runs.runs import Claim
from shared.store.videos import sources
from shared.values import Artifact, OutputFile, Progress, WakeUp, new_id
from worker.models.contract import RunInputs
from worker.pipeline import StageTracker, execute
from worker.pipeline.execute import Execution
from worker.tasks.heartbeat import Heartbeat, RunInterrupted, StopReason
from worker.tasks.host import ModelHost

log = get_logger(__name__)
FINISH_ATTEMPTS = 6
"""Attempts to write the end of a run while the database is unreachable; the pauses double and add up to about 15 s."""


def process_run(host: ModelHost, run_id: str) -> None:
    """Claim and process a run, if it can be claimed; every outcome is written under the fence of the claim."""
    if host.setup_failure is not None:  # unclaimed, so that the run stays queued until a working worker takes it
        log.warning("message.declined", run=run_id, reason=host.setup_failure.code)
        return
    claim = runs.claim_run(
        host.engine,
        run_id,
        owner=host.id,
        device=host.placement.device,
        precision=host.placement.precision,
        version=host.version,
        lease_s=host.config.lease_s,
    )
    if claim is None:  # a duplicate message, or the queue is paused: the database decides, a message only wakes
        log.info("message.dropped", run=run_id)
        return
    host.set_current_run(run_id)
    try:
        with structlog.contextvars.bound_contextvars(run=run_id, model=claim.model, attempt=claim.attempt):
            _process_claim(host, claim)
    finally:
        host.set_current_run(None)


def _process_claim(host: ModelHost, claim: Claim) -> None:
    log.info("run.claimed", fence=claim.fence, video=claim.video.id)
    with Heartbeat(host.engine, claim, host.config) as heartbeat:
        try:
            wakes = _complete_run(host, claim, heartbeat)
        except RunInterrupted as interruption:
            _handle_interruption(host, claim, interruption.reason)
        except Exception as error:  # noqa: BLE001 (every outcome of a run is written to its row)
            _handle_failure(host, claim, heartbeat.current_stage, error)
        else:
            _send_wakes(wakes)


def _complete_run(host: ModelHost, claim: Claim, heartbeat: Heartbeat) -> tuple[WakeUp, ...] | None:
    """Execute and finish the run; return the wake-ups of runs that can start now, None if fenced."""
    stages, spec = StageTracker(heartbeat), CATALOG[claim.model]
    params = spec.read_params(claim.params)
    weights = host.resolve_weights(claim.model, claim.weights)
    with TemporaryDirectory(prefix=f"run-{claim.fence}-") as scratch:
        execution = _execute_model(host, claim, params, stages, Path(scratch))
        with stages.track_stage("store", total=max(1, len(execution.outcome.files)), unit="file"):
            artifacts = [_store_artifact(host, claim, file) for file in execution.outcome.files]
        log.info("run.executed", frames=execution.frames, decoded=execution.frames_decoded)
        used_weights = weights if spec.weights_for(params) else None
        return _finish_run(host, claim, stages.current_progress(), used_weights, execution, artifacts)


def _execute_model(host: ModelHost, claim: Claim, params: Params, stages: StageTracker, scratch: Path) -> Execution:
    path, inputs = _locate_video(host, claim), _load_inputs(host, claim)
    execution = execute.execute_run(
        host.get_model(claim.model), path, claim.video.facts, inputs, params, scratch, stages
    )
    # A file of a source is not ours: if it changed during the run, the results may be of another video.
    if _locate_video(host, claim) != path:
        raise SourceUnreachable("The video was replaced or moved while it was read.")
    return execution


def _locate_video(host: ModelHost, claim: Claim) -> Path:
    """Path at which the bytes of the video are now; SourceUnreachable."""
    video = claim.video
    return host.storage.locate_video(video.sha256, sources.find_video_files(host.engine, video.id), stored=video.stored)


def _load_inputs(host: ModelHost, claim: Claim) -> RunInputs:
    needed_results = results.load_run_outputs(host.engine, claim.needs)
    return RunInputs(
        results={model: rows for model, (rows, _) in needed_results.items()},
        files={
            model: {item.kind: host.storage.object_path(item.sha256) for item in artifacts}
            for model, (_, artifacts) in needed_results.items()
        },
        cached_files=_cached_files(host, claim),
    )


def _cached_files(host: ModelHost, claim: Claim) -> dict[str, Path]:
    """Files kept by an earlier run with the same `encode` stage, if all of them still exist."""
    paths = {
        item.kind: host.storage.object_path(item.sha256)
        for item in results.find_reusable_artifacts(host.engine, claim.run_id)
    }
    return paths if all(path.exists() for path in paths.values()) else {}


def _store_artifact(host: ModelHost, claim: Claim, file: OutputFile) -> Artifact:
    # The tag names run and fence, so that a fenced-off worker cannot touch the partial file of its successor.
    stored = host.storage.put_file(file.path, tag=f"{claim.run_id}.{claim.fence}")
    return Artifact(new_id("art"), file.kind, file.name, file.media_type, stored.sha256, stored.size)


def _finish_run(
    host: ModelHost,
    claim: Claim,
    progress: Progress,
    weights: str | None,
    execution: Execution,
    artifacts: list[Artifact],
) -> tuple[WakeUp, ...] | None:
    """Write the end of the run; retry while the database is unreachable.

    A retry is safe: if the connection broke after the commit, the second attempt finds the run done and writes nothing.
    """
    for attempts_left in reversed(range(FINISH_ATTEMPTS)):
        try:
            return runs.finish_run(
                host.engine,
                claim,
                progress=progress,
                weights=weights,
                decode_failures=execution.video.decode_failures,
                results=execution.outcome.results,
                artifacts=artifacts,
                embeddings=execution.outcome.embeddings,
            )
        except OperationalError as error:
            if not attempts_left:
                raise
            log.warning("run.finish_postponed", reason=type(error.orig).__name__)
            time.sleep(2 ** (FINISH_ATTEMPTS - attempts_left - 2))
    raise AssertionError("unreachable: the last attempt returns or raises")


def _send_wakes(wakes: tuple[WakeUp, ...] | None) -> None:
    if wakes is None:
        log.warning("run.fenced")
        return
    log.info("run.done", freed=len(wakes))
    publish_wakeups(wakes)  # after the commit; if it fails, beat sends the queued runs again


def _handle_interruption(host: ModelHost, claim: Claim, reason: StopReason) -> None:
    """Leave the run in the state that fits the reason; after a lost fence nothing may be written."""
    if reason is StopReason.CANCELLED:
        state = runs.acknowledge_cancel(host.engine, claim)
        log.info("run.stopped", now=state.value if state else "fenced")
    elif reason is StopReason.STOPPING:
        wake = runs.requeue_run(host.engine, claim)
        log.info("run.handed_back", sent=wake is not None and publish_wakeup(wake))
    else:
        log.warning("run.fenced")


def _handle_failure(host: ModelHost, claim: Claim, stage: str | None, error: Exception) -> None:
    """Write the failure to the row of the run; a retryable one is queued again after a pause."""
    known_error = _to_known_error(error)
    if known_error.code == "internal":
        log.error("run.bug", exc_info=error)
    problem: dict[str, Any] = known_error.to_problem() | {"stage": stage, "attempt": claim.attempt}
    recorded = runs.fail_run(
        host.engine, claim, problem, retry=is_retryable(known_error), backoff_s=host.config.retry_backoff_s
    )
    log.warning(
        "run.failed" if recorded else "run.fenced", code=known_error.code, stage=stage, detail=known_error.detail
    )
    if isinstance(error, torch.AcceleratorError):
        # The device context is unusable from now on: only a new process can use the device again.
        os.kill(os.getpid(), signal.SIGKILL)


def _to_known_error(error: Exception) -> SceneworksError:
    """Translate an exception to one of the errors of `shared.errors`; Internal if it is a bug."""
    if isinstance(error, SceneworksError):
        return error
    if isinstance(error, MemoryError):
        return OutOfMemory("The worker ran out of memory.")
    if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return StorageFull("There is no space left for the files of this run.")
    return Internal("The run failed because of an internal error; the worker's log has it under the run's id.")
