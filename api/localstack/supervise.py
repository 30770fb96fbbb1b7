"""Supervise one child process: start it with its log, notice its end, restart it with exponential backoff."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from api.localstack import launch
from api.localstack.servers import Server

FIRST_DELAY_S = 1.0
MAX_DELAY_S = 30.0
STABLE_AFTER_S = 60.0
"""A process that ran for so long restarts with the first delay."""
MAX_LOG_BYTES = 16 * 2**20

LineCallback = Callable[[str], None]


class SupervisedProcess(ABC):
    """One process of the system with its restarts."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.failures = 0
        """Failures in a row, each less than STABLE_AFTER_S after its start."""
        self._started = 0.0
        self._restart_at: float | None = None

    @property
    @abstractmethod
    def log(self) -> Path:
        """File of its output."""

    @abstractmethod
    def is_alive(self) -> bool:
        """Whether its process runs."""

    @abstractmethod
    def request_stop(self) -> None:
        """Ask it to end, and return at once."""

    @abstractmethod
    def stop(self) -> None:
        """End it, and wait for its end."""

    @abstractmethod
    def _start_process(self) -> None:
        """Start the process; ChildProcessError when it does not start."""

    def start(self) -> None:
        """Start it now, with a fresh log when the old one has grown large."""
        _rotate_log(self.log)
        self._started = time.monotonic()
        self._restart_at = None
        self._start_process()

    def restart_if_due(self, print_line: LineCallback) -> None:
        """Check it once: report its end, and restart it when its delay is over."""
        now = time.monotonic()
        if self._restart_at is None:
            if not self.is_alive():
                self._schedule_restart(now, f"{self.name} ended by itself", print_line)
        elif now >= self._restart_at:
            self._try_restart(now, print_line)

    def read_log_tail(self) -> str:
        """Return the end of its log, where the reason of a failure stands."""
        with self.log.open("rb") as log:
            log.seek(max(0, self.log.stat().st_size - 4096))
            lines = log.read().decode(errors="replace").splitlines()
        return f"Its log ({self.log}) ends:\n" + "\n".join(lines[-5:])

    def _try_restart(self, now: float, print_line: LineCallback) -> None:
        try:
            self.start()
        except (ChildProcessError, OSError) as error:
            self._schedule_restart(now, f"{self.name} did not start ({str(error).splitlines()[0]})", print_line)
        else:
            print_line(f"{self.name} was started again.")

    def _schedule_restart(self, now: float, event: str, print_line: LineCallback) -> None:
        if now - self._started > STABLE_AFTER_S:
            self.failures = 0
        delay = min(FIRST_DELAY_S * 2**self.failures, MAX_DELAY_S)
        self.failures += 1
        print_line(f"{event}; starting it again in {delay:g} s. Its log: {self.log}")
        self._restart_at = now + delay


class SupervisedServer(SupervisedProcess):
    """Postgres or Valkey."""

    def __init__(self, server: Server) -> None:
        super().__init__(server.name)
        self.server = server

    @property
    def log(self) -> Path:
        """File of its output."""
        return self.server.log

    def is_alive(self) -> bool:
        """Whether its process runs."""
        return self.server.is_alive()

    def request_stop(self) -> None:
        """Do nothing: servers are stopped last, one after the other, since all others need them to the end."""

    def stop(self) -> None:
        """End it, and wait for its end."""
        self.server.stop()

    def _start_process(self) -> None:
        self.server.start()


class SupervisedChild(SupervisedProcess):
    """A process of our own code, in a process group of its own.

    Args:
        name: for messages.
        argv: command line.
        env: its whole environment.
        cwd: its working folder.
        log: file that its output is appended to.
        stop_timeout_s: seconds after which it is killed when it does not end.
    """

    def __init__(
        self, name: str, argv: list[str], env: Mapping[str, str], cwd: Path, log: Path, stop_timeout_s: float
    ) -> None:
        super().__init__(name)
        self._argv, self._env, self._cwd, self._log, self._stop_timeout_s = argv, env, cwd, log, stop_timeout_s
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        """File of its output."""
        return self._log

    @property
    def pid(self) -> int | None:
        """Process id of the last start."""
        return self._process.pid if self._process else None

    def is_alive(self) -> bool:
        """Whether its process runs."""
        return self._process is not None and self._process.poll() is None

    def request_stop(self) -> None:
        """Ask it to end, and return at once."""
        if self._process is not None and self.is_alive():
            self._process.send_signal(signal.SIGTERM)

    def stop(self) -> None:
        """End it, wait for its end, and kill the rest of its process group."""
        if self._process is None:
            return
        self.request_stop()
        try:
            self._process.wait(self._stop_timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._kill_process_group()

    def _start_process(self) -> None:
        self._kill_process_group()
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                launch.build_command(self._argv),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=dict(self._env),
                cwd=self._cwd,
                start_new_session=True,
            )

    def _kill_process_group(self) -> None:
        """Kill what an ended process has left behind: children of a dead worker must not run beside its successor."""
        if self._process is None:
            return
        with suppress(ProcessLookupError):  # the usual case: the group is empty
            os.killpg(self._process.pid, signal.SIGKILL)


def _rotate_log(log: Path) -> None:
    if log.exists() and log.stat().st_size > MAX_LOG_BYTES:
        log.replace(log.with_suffix(".1.log"))
