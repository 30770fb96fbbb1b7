"""The imperative shell: one run from claim to finish. The only place where the world meets the core."""

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

from shared.catalog import MENU
from shared.errors import Internal, OutOfMemory, SceneworksError, SourceUnreachable, StorageFull
from shared.log import logger
from shared.queue import send, send_all
from shared.store import results, runs
from shared.store.archive import sources
from shared.store.runs import Claim
from shared.values import Artifact, FileMade, Progress, Wake, new_id
from worker import pipeline
from worker.models.contract import Inputs
from worker.pipeline import Execution, Stages
from worker.tasks.heartbeat import Heartbeat, Interrupted, Why
from worker.tasks.host import Host

log = logger(__name__)
FINISH_TRIES = 6


def work(host: Host, run_id: str) -> None:
    """Do a run if it is ours to do; every way it can end is written under its fence."""
    if host.failed is not None:
        log.warning("message.declined", run=run_id, reason=host.failed.code)
        return
    claim = runs.claim(
        host.engine,
        run_id,
        owner=host.id,
        device=host.placement.device,
        precision=host.placement.precision,
        version=host.version,
        lease_s=host.config.lease_s,
    )
    if claim is None:
        log.info("message.dropped", run=run_id)
        return
    host.occupy(run_id)
    try:
        with structlog.contextvars.bound_contextvars(run=run_id, model=claim.model, attempt=claim.attempt):
            _attempt(host, claim)
    finally:
        host.occupy(None)


def _attempt(host: Host, claim: Claim) -> None:
    log.info("run.claimed", fence=claim.fence, video=claim.video.id)
    with Heartbeat(host.engine, claim, host.config) as heart:
        try:
            wakes = _perform(host, claim, heart)
        except Interrupted as stop:
            _interrupted(host, claim, stop.why)
        except Exception as error:  # noqa: BLE001 (every way a run can end is written down)
            _failed(host, claim, heart.stage, error)
        else:
            _finished(wakes)


def _perform(host: Host, claim: Claim, heart: Heartbeat) -> tuple[Wake, ...] | None:
    stages = Stages(heart)
    with TemporaryDirectory(prefix=f"run-{claim.fence}-") as scratch:
        execution = _execute(host, claim, stages, Path(scratch))
        with stages.running("store", of=max(1, len(execution.outcome.files)), unit="file"):
            artifacts = [_store(host, claim, file) for file in execution.outcome.files]
        log.info("run.executed", frames=execution.frames, decoded=execution.frames_decoded)
        return _finish(host, claim, stages.progress(), execution, artifacts)


def _execute(host: Host, claim: Claim, stages: Stages, scratch: Path) -> Execution:
    params = MENU[claim.model].read_params(claim.params)
    host.weights(claim.model, claim.weights)
    path, inputs = _film(host, claim), _inputs(host, claim)
    execution = pipeline.execute(host.model(claim.model), path, claim.video.video, inputs, params, scratch, stages)
    if _film(host, claim) != path:
        raise SourceUnreachable("The film was replaced or moved while it was read.")
    return execution


def _film(host: Host, claim: Claim) -> Path:
    """Where its bytes are now; SourceUnreachable."""
    film = claim.video
    return host.files.film(film.sha256, sources.where(host.engine, film.id), stored=film.stored)


def _weights(host: Host, claim: Claim) -> str | None:
    """Fingerprint for the record; a run that was planned while no worker was heard of learns it here."""
    spec = MENU[claim.model]
    used = spec.weights_for(spec.read_params(claim.params))
    return host.weights(claim.model, claim.weights) if used else None


def _inputs(host: Host, claim: Claim) -> Inputs:
    found = results.of_runs(host.engine, claim.needs)
    return Inputs(
        results={model: rows for model, (rows, _) in found.items()},
        files={
            model: {item.kind: host.files.path(item.sha256) for item in artifacts}
            for model, (_, artifacts) in found.items()
        },
        kept=_kept(host, claim),
    )


def _kept(host: Host, claim: Claim) -> dict[str, Path]:
    """What a run that encoded alike has kept, where all of it is still there."""
    paths = {item.kind: host.files.path(item.sha256) for item in results.kept(host.engine, claim.run_id)}
    return paths if all(path.exists() for path in paths.values()) else {}


def _store(host: Host, claim: Claim, file: FileMade) -> Artifact:
    stored = host.files.put(file.path, tag=f"{claim.run_id}.{claim.fence}")
    return Artifact(new_id("art"), file.kind, file.name, file.media_type, stored.sha256, stored.size)


def _finish(
    host: Host, claim: Claim, progress: Progress, execution: Execution, artifacts: list[Artifact]
) -> tuple[Wake, ...] | None:
    """Write the end, again while the database is away; a repeated finish finds its own effect and writes nothing."""
    for left in reversed(range(FINISH_TRIES)):
        try:
            return runs.finish(
                host.engine,
                claim,
                progress=progress,
                weights=_weights(host, claim),
                decode_failures=execution.video.decode_failures,
                results=execution.outcome.results,
                artifacts=artifacts,
                embeddings=execution.outcome.embeddings,
            )
        except OperationalError as error:
            if not left:
                raise
            log.warning("run.finish_postponed", reason=type(error.orig).__name__)
            time.sleep(2 ** (FINISH_TRIES - left - 2))
    raise AssertionError("unreachable: the last try returns or raises")


def _finished(wakes: tuple[Wake, ...] | None) -> None:
    if wakes is None:
        log.warning("run.fenced")
        return
    log.info("run.done", freed=len(wakes))
    send_all(wakes)


def _interrupted(host: Host, claim: Claim, why: Why) -> None:
    if why is Why.CANCELLED:
        state = runs.stopped(host.engine, claim)
        log.info("run.stopped", now=state.value if state else "fenced")
    elif why is Why.STOPPING:
        wake = runs.hand_back(host.engine, claim)
        log.info("run.handed_back", sent=wake is not None and send(wake))
    else:
        log.warning("run.fenced")


def _failed(host: Host, claim: Claim, stage: str | None, error: Exception) -> None:
    known = _known(error)
    if known.code == "internal":
        log.error("run.bug", exc_info=error)
    problem: dict[str, Any] = known.problem() | {"stage": stage, "attempt": claim.attempt}
    kept = runs.fail(host.engine, claim, problem, retry=runs.retried(known), backoff_s=host.config.retry_backoff_s)
    log.warning("run.failed" if kept else "run.fenced", code=known.code, stage=stage, detail=known.detail)
    if isinstance(error, torch.AcceleratorError):
        # The device context is poisoned for good: only a new process can use the device again.
        os.kill(os.getpid(), signal.SIGKILL)


def _known(error: Exception) -> SceneworksError:
    if isinstance(error, SceneworksError):
        return error
    if isinstance(error, MemoryError):
        return OutOfMemory("The worker ran out of memory.")
    if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return StorageFull("There is no room left for the files of this run.")
    return Internal("The run failed for a reason of ours; the worker's log has it under the run's id.")
