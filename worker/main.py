"""The worker's boot: a Celery parent that holds no model, and one pool child that holds it.

The parent never touches a device. The child is spawned, not forked, so that CUDA can be used in it.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import warnings
from collections.abc import Callable
from typing import Any

from celery.exceptions import SecurityWarning
from celery.signals import worker_shutdown, worker_shutting_down
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from shared import log as logs
from shared.catalog import served
from shared.db import engine
from shared.errors import ModelUnavailable, SceneworksError
from shared.extras import ExtraMissing, require_extras
from shared.queue import app
from shared.settings import settings
from shared.store import workers

log = logs.logger(__name__)
WORKER_ID = "_SCENEWORKS_WORKER_ID"
"""Environment variable by which the parent names the worker to its children."""


def main() -> None:
    """Serve the models of SCENEWORKS_MODELS until told to stop; exit 2 when the settings cannot be met."""
    logs.configure()
    try:
        names = served(settings().models)
        require_extras("worker")
        _refuse_missing_device(settings().device)
    except SceneworksError as error:
        log.critical("worker.refused", code=error.code, detail=error.detail)
        sys.exit(2)
    except ExtraMissing as error:
        log.critical("worker.refused", detail=str(error))
        sys.exit(2)
    worker_id = f"{'-'.join(names)}-{os.getpid()}@{socket.gethostname()}"
    os.environ[WORKER_ID] = worker_id
    warnings.filterwarnings("ignore", category=SecurityWarning)  # root is no danger where only JSON is taken
    app.worker_main(
        [
            "worker",
            f"--queues={','.join(names)}",
            f"--hostname={worker_id}",
            f"--loglevel={settings().log_level}",
            "--without-gossip",
            "--without-mingle",
        ]
    )


def _refuse_missing_device(device: str) -> None:
    """Ask a process of its own whether the GPU is there: a parent that touched CUDA could not spawn clean children."""
    if device in {"auto", "cpu"}:
        return
    question = "import sys; from worker.models.placement import place; place(sys.argv[1], 'auto', 'torch', 1)"
    answer = subprocess.run([sys.executable, "-c", question, device], capture_output=True, text=True, check=False)
    if answer.returncode:
        raise ModelUnavailable(f"The device {device!r} was asked for and cannot be used.")


@worker_shutting_down.connect  # type: ignore[untyped-decorator]
def _ask_child_to_stop(**_: Any) -> None:
    """A polite stop: the child hands its run back at its next sign of progress, and the parent waits for it."""
    _tell(workers.stop)


@worker_shutdown.connect  # type: ignore[untyped-decorator]
def _say_goodbye(**_: Any) -> None:
    _tell(workers.forget)


def _tell(verb: Callable[[Engine, str], None]) -> None:
    try:
        verb(engine(), os.environ[WORKER_ID])
    except SQLAlchemyError as error:
        log.warning("worker.unheard", reason=type(error).__name__)


if __name__ == "__main__":
    main()
