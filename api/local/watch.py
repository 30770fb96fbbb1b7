"""One watched child process: started with its log, seen when it ends, started again with a growing pause."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from api.local import launch
from api.local.servers import Server

FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 30.0
STEADY_S = 60.0
"""A part that ran for so long starts again with the first pause."""
LONGEST_LOG = 16 * 2**20

Say = Callable[[str], None]


class Part(ABC):
    """One process of the system and its history of ends."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.failures = 0
        """Ends in a row, none of them after a steady time."""
        self._started = 0.0
        self._again_at: float | None = None

    @property
    @abstractmethod
    def log(self) -> Path:
        """What it has to say."""

    @abstractmethod
    def alive(self) -> bool:
        """Whether its process runs."""

    @abstractmethod
    def ask(self) -> None:
        """Ask it to end, without waiting."""

    @abstractmethod
    def stop(self) -> None:
        """End it, and wait for that."""

    @abstractmethod
    def _begin(self) -> None:
        """Start the process; ChildProcessError when it cannot."""

    def start(self) -> None:
        """Start it now."""
        _rotate(self.log)
        self._started = time.monotonic()
        self._again_at = None
        self._begin()

    def tend(self, say: Say) -> None:
        """Look after it: say that it ended, and start it again when its pause is over."""
        now = time.monotonic()
        if self._again_at is None:
            if not self.alive():
                self._plan(now, f"{self.name} ended by itself", say)
        elif now >= self._again_at:
            self._try_again(now, say)

    def last_words(self) -> str:
        """The end of its log, which is where the reason stands."""
        with self.log.open("rb") as log:
            log.seek(max(0, self.log.stat().st_size - 4096))
            lines = log.read().decode(errors="replace").splitlines()
        return f"Its log ({self.log}) ends:\n" + "\n".join(lines[-5:])

    def _try_again(self, now: float, say: Say) -> None:
        try:
            self.start()
        except (ChildProcessError, OSError) as error:
            self._plan(now, f"{self.name} did not start ({str(error).splitlines()[0]})", say)
        else:
            say(f"{self.name} was started again.")

    def _plan(self, now: float, what: str, say: Say) -> None:
        if now - self._started > STEADY_S:
            self.failures = 0
        pause = min(FIRST_PAUSE_S * 2**self.failures, LONGEST_PAUSE_S)
        self.failures += 1
        say(f"{what}; starting it again in {pause:g} s. Its log: {self.log}")
        self._again_at = now + pause


class ServerPart(Part):
    """Postgres or Valkey."""

    def __init__(self, server: Server) -> None:
        super().__init__(server.name)
        self.server = server

    @property
    def log(self) -> Path:
        """What it has to say."""
        return self.server.log

    def alive(self) -> bool:
        """Whether its process runs."""
        return self.server.alive()

    def ask(self) -> None:
        """Servers end last, one by one: nothing to do ahead of `stop`."""

    def stop(self) -> None:
        """End it, and wait for that."""
        self.server.stop()

    def _begin(self) -> None:
        self.server.start()


class Child(Part):
    """A process of our own code.

    Args:
        name: for people.
        argv: command line.
        env: its whole environment.
        log: file that its output is appended to.
        stop_s: after so many seconds without listening it is killed.
    """

    def __init__(self, name: str, argv: list[str], env: Mapping[str, str], log: Path, stop_s: float) -> None:
        super().__init__(name)
        self._argv, self._env, self._log, self._stop_s = argv, env, log, stop_s
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        """What it has to say."""
        return self._log

    @property
    def pid(self) -> int | None:
        """Process id of the latest start."""
        return self._process.pid if self._process else None

    def alive(self) -> bool:
        """Whether its process runs."""
        return self._process is not None and self._process.poll() is None

    def ask(self) -> None:
        """Ask it to end, without waiting."""
        if self._process is not None and self.alive():
            self._process.send_signal(signal.SIGTERM)

    def stop(self) -> None:
        """End it, and wait for that; then nothing of its process group is left."""
        if self._process is None:
            return
        self.ask()
        try:
            self._process.wait(self._stop_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._sweep_group()

    def _begin(self) -> None:
        self._sweep_group()
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                launch.command(self._argv),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=dict(self._env),
                start_new_session=True,
            )

    def _sweep_group(self) -> None:
        """Kill what a process that ended has left behind: a half-dead worker must not work beside its successor."""
        if self._process is None:
            return
        with suppress(ProcessLookupError):  # the usual case: nothing is left
            os.killpg(self._process.pid, signal.SIGKILL)


def _rotate(log: Path) -> None:
    if log.exists() and log.stat().st_size > LONGEST_LOG:
        log.replace(log.with_suffix(".1.log"))
