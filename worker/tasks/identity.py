"""The worker's name, which the pool's parent passes to its children. Without torch: the parent imports it too."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence

WORKER_ID_ENV = "_SCENEWORKS_WORKER_ID"


def assign_worker_id(model_names: Sequence[str]) -> str:
    """Choose the name of this worker, in its parent process, and pass it to the children by the environment.

    A child that was killed is replaced by a new one under the same name, so `workers` has one row for both.
    """
    os.environ[WORKER_ID_ENV] = f"{'-'.join(model_names)}-{os.getpid()}@{socket.gethostname()}"
    return os.environ[WORKER_ID_ENV]


def get_worker_id() -> str:
    """Return the name that the parent has assigned; a name of its own for a process without such a parent."""
    return os.environ.get(WORKER_ID_ENV) or f"{socket.gethostname()}-{os.getpid()}"
