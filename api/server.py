"""The command line of gunicorn, from the settings."""

from __future__ import annotations

from pathlib import Path

from api.http.auth import read_api_keys
from api.http.context import STREAMS, THREADS
from shared.settings import Settings

MEMORY_FOLDER = Path("/dev/shm")  # noqa: S108 (gunicorn makes its own file in it, unlinked at once)


def gunicorn_options(settings: Settings) -> list[str]:
    """Command line of gunicorn, the app included.

    Threads, since most requests wait or copy bytes. `timeout` is that of the worker's own loop and not of a request: an
    upload may take hours (a stalled one is given up by `api.videos`). The heartbeat file lies in memory where there is
    such a folder: on a slow disk a busy worker would look dead. Refuses what `create_app` refuses, before any socket.
    """
    read_api_keys(settings)
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    options = {
        "worker-class": "gthread",
        "workers": "1",
        "threads": str(THREADS + STREAMS),
        "bind": f"{host}:{settings.port}",
        "timeout": "60",
        "graceful-timeout": "30",
        "keep-alive": "15",
    }
    if MEMORY_FOLDER.is_dir():
        options["worker-tmp-dir"] = str(MEMORY_FOLDER)
    return [*(f"--{name}={value}" for name, value in options.items()), "--no-control-socket", "api.app:create_app()"]
