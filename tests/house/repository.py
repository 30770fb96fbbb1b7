"""The repository as data: its files, its functions, and commands run in it."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("api", "migrations", "shared", "tests", "worker")
GENERATED_FOLDERS = {"__pycache__", "node_modules"}


@cache
def files() -> tuple[Path, ...]:
    """Every file of the repository, relative to its root: by git, or by the file system where there is no git."""
    listing = run("git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    if listing.returncode != 0 or not listing.stdout:
        return tuple(sorted(_walk()))
    return tuple(sorted(path for path in map(Path, listing.stdout.split("\0")[:-1]) if (ROOT / path).is_file()))


def _walk() -> Iterator[Path]:
    yield from (path.relative_to(ROOT) for path in ROOT.iterdir() if path.is_file())
    for folder in (*FOLDERS, ".ci", "examples"):
        for path in (ROOT / folder).rglob("*"):
            relative = path.relative_to(ROOT)
            if path.is_file() and not GENERATED_FOLDERS & set(relative.parts) and path.suffix != ".pyc":
                yield relative


def python_files() -> tuple[Path, ...]:
    """Every Python file."""
    return tuple(path for path in files() if path.suffix == ".py")


def text(path: Path | str) -> str:
    """Contents of a file of the repository; bytes that are not UTF-8 are replaced."""
    return (ROOT / path).read_text(encoding="utf-8", errors="replace")


@dataclass(frozen=True, slots=True)
class Function:
    """A function or method in a source file."""

    path: Path
    node: ast.FunctionDef | ast.AsyncFunctionDef

    def __str__(self) -> str:
        return f"{self.path}:{self.node.lineno} {self.node.name}"

    @property
    def lines(self) -> int:
        """Lines from its `def` to its end."""
        return (self.node.end_lineno or self.node.lineno) - self.node.lineno + 1

    @property
    def missing_annotations(self) -> list[str]:
        """Names of arguments without an annotation, and `return` where it has none."""
        spec = self.node.args
        plain = [*spec.posonlyargs, *spec.args, *spec.kwonlyargs, *filter(None, (spec.vararg, spec.kwarg))]
        missing = [arg.arg for arg in plain if arg.annotation is None and arg.arg not in {"self", "cls"}]
        return missing if self.node.returns is not None else [*missing, "return"]


def functions() -> Iterator[Function]:
    """Every function of the repository."""
    for path in python_files():
        for node in ast.walk(ast.parse(text(path), filename=str(path))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield Function(path, node)


def run(*command: str, cwd: Path = ROOT, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command with the tools of this environment first on the path; 280 s at most, as a test has 300."""
    tools = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    return subprocess.run(
        command, cwd=cwd, env=os.environ | tools | (env or {}), capture_output=True, text=True, timeout=280, check=False
    )


def run_in_new_interpreter(code: str) -> str:
    """Run code in a new interpreter and return its standard output; a failure shows its standard error."""
    done = run(sys.executable, "-c", code)
    assert done.returncode == 0, done.stderr
    return done.stdout


def code_blocks(path: Path | str, *languages: str) -> list[str]:
    """The fenced blocks of a document in one of those languages."""
    blocks = re.findall(r"^```(\w+)\n(.*?)^```$", text(path), flags=re.MULTILINE | re.DOTALL)
    return [body for language, body in blocks if language in languages]


def commands(path: Path | str) -> list[str]:
    """Lines of the shell blocks of a document, continuation lines joined, without comments and prompts."""
    lines = "\n".join(code_blocks(path, "sh", "bash", "console")).replace("\\\n", " ").splitlines()
    stripped = (re.sub(r"\s+#\s.*$", "", line).removeprefix("$ ").strip() for line in lines)
    return [line for line in stripped if line and not line.startswith("#")]
