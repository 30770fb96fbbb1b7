"""Files of strangers, read by processes of their own: their facts, and whatever else has to be found in them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from shared.errors import DeadlineExceeded, Internal, MediaCorrupt, SceneworksError, leaves
from shared.log import logger
from shared.values import Video

log = logger(__name__)

ROOT = Path(__file__).resolve().parents[2]
PASSED_ON = ("PATH", "LANG", "LD_LIBRARY_PATH", "TMPDIR")


def probe(path: Path, timeout_s: float, *, allow_damaged: bool) -> Video:
    """Facts of a file."""
    done = read("worker.video.probe", path, timeout_s, *(["--allow-damaged"] if allow_damaged else []))
    return Video.read(answer(done)["video"])


def read(
    module: str, path: Path, timeout_s: float, *options: str, asked: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    """Let a process of its own read a file: a hostile file can crash that one, and it holds no secrets.

    Args:
        module: what the process runs.
        path: the file.
        timeout_s: after this it is killed, and the answer is DeadlineExceeded.
        options: of its command line, after the file.
        asked: its standard input.
    """
    command = [sys.executable, "-m", module, str(path.resolve()), *options]
    env = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    try:
        return subprocess.run(
            command, cwd=ROOT, env=env, input=asked, capture_output=True, timeout=timeout_s, check=False
        )
    except subprocess.TimeoutExpired:
        raise DeadlineExceeded(f"The file could not be read within {timeout_s:g} s.") from None


def answer(done: subprocess.CompletedProcess[bytes]) -> dict[str, Any]:
    """What such a process says as JSON; its problem as an error, MediaCorrupt when the file has crashed it."""
    if done.returncode < 0:
        log.warning("probe.crashed", signal=signal.Signals(-done.returncode).name)
        raise MediaCorrupt("Reading the file crashed the reader.")
    try:
        said: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        log.exception("probe.failed", status=done.returncode, stderr=done.stderr[-2000:].decode(errors="replace"))
        raise Internal("The file could not be read.") from None
    if "problem" in said:
        fault: type[SceneworksError] = leaves().get(said["problem"]["code"], Internal)
        raise fault(said["problem"]["detail"])
    return said
