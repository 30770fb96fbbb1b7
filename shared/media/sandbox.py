"""Files of strangers, read by processes of their own: their facts, and whatever else has to be found in them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from shared.errors import DeadlineExceeded, Internal, MediaCorrupt, SceneworksError, errors_by_code
from shared.log import get_logger
from shared.values import VideoFacts

log = get_logger(__name__)

REPOSITORY_ROOT = Path(__file__).resolve().parents[2]
INHERITED_ENV = ("PATH", "LANG", "LD_LIBRARY_PATH", "TMPDIR")


def probe_video(path: Path, timeout_s: float, *, allow_damaged: bool) -> VideoFacts:
    """Facts of a file."""
    completed = run_reader("worker.video.probe", path, timeout_s, *(["--allow-damaged"] if allow_damaged else []))
    return VideoFacts.from_dict(parse_reader_output(completed)["video"])


def run_reader(
    module: str, path: Path, timeout_s: float, *options: str, stdin: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    """Let a process of its own read a file: a hostile file can crash that one, and it holds no secrets.

    Args:
        module: what the process runs.
        path: the file.
        timeout_s: after this it is killed, and the answer is DeadlineExceeded.
        options: of its command line, after the file.
        stdin: its standard input.
    """
    command = [sys.executable, "-m", module, str(path.resolve()), *options]
    env = {name: os.environ[name] for name in INHERITED_ENV if name in os.environ}
    try:
        return subprocess.run(
            command, cwd=REPOSITORY_ROOT, env=env, input=stdin, capture_output=True, timeout=timeout_s, check=False
        )
    except subprocess.TimeoutExpired:
        raise DeadlineExceeded(f"The file could not be read within {timeout_s:g} s.") from None


def parse_reader_output(completed: subprocess.CompletedProcess[bytes]) -> dict[str, Any]:
    """What such a process says as JSON; its problem as an error, MediaCorrupt when the file has crashed it."""
    if completed.returncode < 0:
        log.warning("probe.crashed", signal=signal.Signals(-completed.returncode).name)
        raise MediaCorrupt("Reading the file crashed the reader.")
    try:
        output: dict[str, Any] = json.loads(completed.stdout)
    except ValueError:
        log.exception(
            "probe.failed", status=completed.returncode, stderr=completed.stderr[-2000:].decode(errors="replace")
        )
        raise Internal("The file could not be read.") from None
    if "problem" in output:
        error_class: type[SceneworksError] = errors_by_code().get(output["problem"]["code"], Internal)
        raise error_class(output["problem"]["detail"])
    return output
