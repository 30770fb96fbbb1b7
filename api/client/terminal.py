"""What every command needs: where the service is, what is asked of it, and how its answers reach a terminal."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from api.client.service import Record, Service

FAILED, REFUSED, UNREACHABLE, INTERRUPTED = 1, 2, 3, 130

AsJson = Annotated[bool, typer.Option("--json", help="Print the API's own record.")]
ModelOption = Annotated[list[str], typer.Option("--model", "-m", help="Model to run; may be given again.")]
ParamOption = Annotated[
    list[str] | None,
    typer.Option("--param", "-p", metavar="[MODEL.]NAME=VALUE", help="Parameter, as JSON or text; may be given again."),
]


@dataclass(frozen=True, slots=True)
class Address:
    """Where the service is."""

    url: str
    key: str


@contextmanager
def connected(context: typer.Context) -> Iterator[Service]:
    """The service; what goes wrong meanwhile is said."""
    from api.client.service import Service

    with said(), Service(context.obj.url, context.obj.key) as service:
        yield service


@contextmanager
def said() -> Iterator[None]:
    """Turn what went wrong into words and an exit code."""
    from shared.errors import SceneworksError
    from shared.extras import ExtraMissing

    try:
        yield
    except SceneworksError as error:
        from api.client.screen import refusal

        complain([refusal(error)])
        raise typer.Exit(REFUSED) from None
    except BrokenPipeError:  # the reader has what it wanted: `... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nor does the interpreter write on at its end
        raise typer.Exit(0) from None
    except ConnectionError as error:
        complain([str(error)])
        raise typer.Exit(UNREACHABLE) from None
    except (ChildProcessError, ExtraMissing, FileNotFoundError) as error:
        complain([str(error)])
        raise typer.Exit(FAILED) from None


def read_analyses(models: list[str], pairs: list[str] | None) -> list[Record]:
    """What is asked for. A parameter without a model's name goes to every model."""
    analyses: dict[str, dict[str, Any]] = {model: {} for model in models}
    for pair in pairs or []:
        name, equals, value = pair.partition("=")
        owner, dot, rest = name.partition(".")
        if not equals or (dot and owner not in analyses):
            raise typer.BadParameter(f"{pair!r} is not [MODEL.]NAME=VALUE", param_hint="--param")
        for model in [owner] if dot else models:
            analyses[model][rest if dot else name] = _value(value)
    return [{"model": model, "params": params} for model, params in analyses.items()]


def _value(text: str) -> Any:
    """JSON where it is JSON, otherwise the text itself."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def shown(record: Any, as_json: bool, render: Callable[[Any], Any]) -> None:
    """Print a record, as it is or as people read it."""
    if as_json:
        out(json.dumps(record, indent=2))
    else:
        console().print(render(record))


def console(stderr: bool = False) -> Console:
    """Where tables and progress go."""
    from rich.console import Console

    made = Console(stderr=stderr, highlight=False)
    if not made.is_terminal:
        made.width = 240  # a table in a file is not squeezed to a width nobody set
    return made


def complain(lines: list[str]) -> None:
    """Say on standard error what went wrong."""
    for line in lines:
        typer.echo(line, err=True)


def out(text: str) -> None:
    """Print a line."""
    typer.echo(text)
