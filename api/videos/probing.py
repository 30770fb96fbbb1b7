"""Facts of an uploaded file, found by a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from shared.errors import DeadlineExceeded, Internal, MediaCorrupt, SceneworksError, leaves
from shared.log import logger
from shared.values import Video

log = logger(__name__)

ROOT = Path(__file__).resolve().parents[2]
PASSED_ON = ("PATH", "LANG", "LD_LIBRARY_PATH", "TMPDIR")


def probe(path: Path, timeout_s: float, *, allow_damaged: bool) -> Video:
    """Facts of a file, found by a process of its own: a hostile file can crash that one, and it holds no secrets."""
    command = [sys.executable, "-m", "worker.video.probe", str(path.resolve())]
    command += ["--allow-damaged"] if allow_damaged else []
    env = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=env, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout_s, check=False
        )
    except subprocess.TimeoutExpired:
        raise DeadlineExceeded(f"The file could not be read within {timeout_s:g} s.") from None
    return _facts(done)


def _facts(done: subprocess.CompletedProcess[bytes]) -> Video:
    if done.returncode < 0:
        log.warning("probe.crashed", signal=signal.Signals(-done.returncode).name)
        raise MediaCorrupt("Reading the file crashed the reader.")
    try:
        said = json.loads(done.stdout)
    except ValueError:
        log.exception("probe.failed", status=done.returncode, stderr=done.stderr[-2000:].decode(errors="replace"))
        raise Internal("The file could not be probed.") from None
    if "problem" in said:
        fault: type[SceneworksError] = leaves().get(said["problem"]["code"], Internal)
        raise fault(said["problem"]["detail"])
    return Video.read(said["video"])
