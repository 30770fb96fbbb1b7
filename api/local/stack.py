"""The whole system on one machine, in one folder: Postgres, Valkey, and every process of ours as watched children.

folder/  postgres/ valkey/ files/ weights/ log/ beat/ owner
"""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import IO, Self

import httpx

from api.local.servers import Postgres, Valkey, free_port
from api.local.watch import Child, Part, Say, ServerPart
from shared.errors import Conflict
from shared.settings import Settings

API_PORT, FLOWER_PORT = 8000, 5555
READY_S = 60.0
STOP_S = 15.0
PATIENCE = 3
"""Failures of a part in a row after which a start, or a demo, is given up."""


class Stack:
    """The system, from the first start in an empty folder to the last process gone. Start it from the main thread.

    Args:
        folder: made when missing; one stack at a time.
        port: of the API; when taken, a free one.
        flower_port: of Flower, likewise.
        say: takes each line that a person should read.
    """

    def __init__(self, folder: Path, say: Say, port: int = API_PORT, flower_port: int = FLOWER_PORT) -> None:
        self.folder = folder.resolve()
        self.parts: list[Part] = []
        self._say = say
        self._wanted = port, flower_port
        self._port = self._flower_port = 0
        self._owner: IO[str] | None = None

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """Where the API and the page are."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def flower_url(self) -> str:
        """Where Flower is."""
        return f"http://127.0.0.1:{self._flower_port}"

    def start(self) -> None:
        """Start everything, in order. Conflict: the folder is in use; ChildProcessError: a part failed."""
        owner = self._own()
        postgres, valkey = self._start_servers()
        self._migrate(postgres.url)
        self._port = self._choose("The API", self._wanted[0])
        self._flower_port = self._choose("Flower", self._wanted[1])
        owner.write(f" (process {os.getpid()}, {self.url})")
        owner.flush()
        for child in self._children(self._environment(postgres.url, valkey.url)):
            self._start(child)
        self._wait_ready()

    def tend(self, patience: int | None = None) -> None:
        """Look after every part once; call it a few times a second.

        Args:
            patience: with it, ChildProcessError when a part has failed so many times in a row.
        """
        for part in self.parts:
            part.tend(self._say)
            if patience is not None and part.failures >= patience:
                raise ChildProcessError(f"{part.name} does not stay up. {part.last_words()}")

    def stop(self) -> None:
        """Stop everything, the worker first and Postgres last; no process is left."""
        with _undisturbed():
            for part in self.parts[:1:-1]:  # our own processes hear of it at once, and are waited for in turn
                part.ask()
            while self.parts:
                self.parts.pop().stop()
            if self._owner is not None:
                self._owner.truncate(0)
                self._owner.close()
                self._owner = None

    def _own(self) -> IO[str]:
        self.folder.mkdir(parents=True, exist_ok=True)
        for name in ("files", "log", "beat"):  # films and what is said of them are nobody else's business
            (self.folder / name).mkdir(mode=0o700, exist_ok=True)
        owner = (self.folder / "owner").open("a+")
        try:
            fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner.seek(0)
            raise Conflict(f"Sceneworks is already running in {self.folder}{owner.read()}.") from None
        owner.truncate(0)  # what a stack that was killed had noted
        self._owner = owner
        return owner

    def _start_servers(self) -> tuple[Postgres, Valkey]:
        postgres = Postgres(self.folder / "postgres", log=self.folder / "log" / "postgres.log")
        valkey = Valkey(self.folder / "valkey", log=self.folder / "log" / "valkey.log")
        self._start(ServerPart(postgres))
        self._start(ServerPart(valkey))
        return postgres, valkey

    def _start(self, part: Part) -> None:
        self.parts.append(part)
        part.start()

    def _migrate(self, url: str) -> None:
        from shared.db import migrate

        migrate(url)

    def _choose(self, name: str, wanted: int) -> int:
        port = free_port(wanted)
        if wanted not in {0, port}:
            self._say(f"Port {wanted} is taken: {name} is on {port}.")
        return port

    def _environment(self, database_url: str, redis_url: str) -> dict[str, str]:
        """Settings given from outside stand; those that make this stack one system are ours."""
        defaults = {
            "SCENEWORKS_WEIGHTS_DIR": str(self.folder / "weights"),
            "SCENEWORKS_SOFT_SHUTDOWN_S": "3",
        }
        ours = {
            "SCENEWORKS_DATABASE_URL": database_url,
            "SCENEWORKS_REDIS_URL": redis_url,
            "SCENEWORKS_DATA_DIR": str(self.folder / "files"),
            "SCENEWORKS_HOST": "127.0.0.1",
            "SCENEWORKS_PORT": str(self._port),
            "PYTHONUNBUFFERED": "1",
        }
        return defaults | dict(os.environ) | ours

    def _children(self, env: dict[str, str]) -> Iterator[Child]:
        """In the order of their start; they are stopped the other way round."""
        celery = ["celery", "-A", "shared.queue"]
        schedule = str(self.folder / "beat" / "schedule")
        flower = [f"--port={self._flower_port}", "--address=127.0.0.1", "--read_only"]
        yield self._child("api", ["gunicorn", "--graceful-timeout=3", *self._gunicorn()], env)
        yield self._child("flower", [*celery, "flower", *flower], env)
        yield self._child("beat", [*celery, "beat", "--schedule", schedule, "--pidfile="], env)
        yield self._child("archive", ["api.archive.scanner"], env)
        yield self._child("worker", ["worker.main"], env)

    def _gunicorn(self) -> list[str]:
        from api.app import gunicorn_options

        options = gunicorn_options(Settings(host="127.0.0.1", port=self._port))
        return [option for option in options if not option.startswith("--graceful-timeout")]

    def _child(self, name: str, module: list[str], env: dict[str, str]) -> Child:
        return Child(name, [sys.executable, "-m", *module], env, self.folder / "log" / f"{name}.log", STOP_S)

    def _wait_ready(self) -> None:
        deadline = time.monotonic() + READY_S
        while (state := _ready(self.url)) != "ready":
            if time.monotonic() > deadline:
                raise ChildProcessError(f"The API is not ready after {READY_S:g} s ({state}). Logs: {self.folder}/log")
            self.tend(patience=PATIENCE)
            time.sleep(0.05)


@contextmanager
def interruptible() -> Iterator[None]:
    """Make Ctrl-C, `kill` and a closed terminal the same KeyboardInterrupt, also where a shell had them ignored."""
    before = {number: signal.signal(number, _interrupt) for number in ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """A second Ctrl-C must not cut the stopping short: it is bounded anyway."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def _interrupt(number: int, _: FrameType | None) -> None:
    for (
        each
    ) in ENDING:  # one is enough: make and a terminal both send it, and the second must not cut into the stopping
        signal.signal(each, signal.SIG_IGN)
    raise KeyboardInterrupt(signal.Signals(number).name)


def _ready(url: str) -> str:
    try:
        answer = httpx.get(f"{url}/readyz", timeout=5, trust_env=False)
    except httpx.TransportError as error:
        return str(error)
    return "ready" if answer.is_success else f"status {answer.status_code}"
