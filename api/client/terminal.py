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

    from api.client.http import ApiClient, JsonObject

EXIT_FAILED, EXIT_REFUSED, EXIT_UNREACHABLE, EXIT_INTERRUPTED = 1, 2, 3, 130

AsJson = Annotated[bool, typer.Option("--json", help="Print the API's own record.")]
ModelOption = Annotated[list[str], typer.Option("--model", "-m", help="Model to run; may be given again.")]
ParamOption = Annotated[
    list[str] | None,
    typer.Option("--param", "-p", metavar="[MODEL.]NAME=VALUE", help="Parameter, as JSON or text; may be given again."),
]


@dataclass(frozen=True, slots=True)
class ServiceAddress:
    """Where the service is."""

    url: str
    key: str


@contextmanager
def connect_client(context: typer.Context) -> Iterator[ApiClient]:
    """The service; what goes wrong meanwhile is said."""
    from api.client.http import ApiClient

    with exit_on_error(), ApiClient(context.obj.url, context.obj.key) as service:
        yield service


@contextmanager
def exit_on_error() -> Iterator[None]:
    """Turn what went wrong into words and an exit code."""
    from shared.errors import SceneworksError
    from shared.extras import ExtraMissing

    try:
        yield
    except SceneworksError as error:
        from api.client.render.jobs import format_error

        print_errors([format_error(error)])
        raise typer.Exit(EXIT_REFUSED) from None
    except BrokenPipeError:  # the reader has what it wanted: `... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nor does the interpreter write on at its end
        raise typer.Exit(0) from None
    except ConnectionError as error:
        print_errors([str(error)])
        raise typer.Exit(EXIT_UNREACHABLE) from None
    except (ChildProcessError, ExtraMissing, FileNotFoundError) as error:
        print_errors([str(error)])
        raise typer.Exit(EXIT_FAILED) from None


def read_analyses(models: list[str], assignments: list[str] | None) -> list[JsonObject]:
    """What is asked for. A parameter without a model's name goes to every model."""
    analyses: dict[str, dict[str, Any]] = {model: {} for model in models}
    for assignment in assignments or []:
        name, equals, value = assignment.partition("=")
        model_name, dot, param_name = name.partition(".")
        if not equals or (dot and model_name not in analyses):
            raise typer.BadParameter(f"{assignment!r} is not [MODEL.]NAME=VALUE", param_hint="--param")
        for model in [model_name] if dot else models:
            analyses[model][param_name if dot else name] = _parse_value(value)
    return [{"model": model, "params": params} for model, params in analyses.items()]


def _parse_value(text: str) -> Any:
    """JSON where it is JSON, otherwise the text itself."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def print_record(record: Any, as_json: bool, render: Callable[[Any], Any]) -> None:
    """Print a record, as it is or as people read it."""
    if as_json:
        print_line(json.dumps(record, indent=2))
    else:
        create_console().print(render(record))


def create_console(stderr: bool = False) -> Console:
    """Where tables and progress go."""
    from rich.console import Console

    console = Console(stderr=stderr, highlight=False)
    if not console.is_terminal:
        console.width = 240  # a table in a file is not squeezed to a width nobody set
    return console


def print_errors(lines: list[str]) -> None:
    """Say on standard error what went wrong."""
    for line in lines:
        typer.echo(line, err=True)


def print_line(text: str) -> None:
    """Print a line."""
    typer.echo(text)
