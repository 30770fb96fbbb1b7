"""What every command needs: the address of the service, options, printing, and exit codes."""

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
    from shared.errors import SceneworksError

EXIT_FAILED, EXIT_REFUSED, EXIT_UNREACHABLE, EXIT_INTERRUPTED = 1, 2, 3, 130

AsJson = Annotated[bool, typer.Option("--json", help="Print the API's own record.")]
ModelOption = Annotated[list[str], typer.Option("--model", "-m", help="Model to run; may be given again.")]
ParamOption = Annotated[
    list[str] | None,
    typer.Option("--param", "-p", metavar="[MODEL.]NAME=VALUE", help="Parameter, as JSON or text; may be given again."),
]


@dataclass(frozen=True, slots=True)
class ServiceAddress:
    """Address of the service, and the API key for it."""

    url: str
    key: str


@contextmanager
def connect_client(context: typer.Context) -> Iterator[ApiClient]:
    """Open a client of the service; an error inside the block is printed and ends the program with its exit code."""
    from api.client.http import ApiClient

    with exit_on_error(), ApiClient(context.obj.url, context.obj.key) as client:
        yield client


@contextmanager
def exit_on_error() -> Iterator[None]:
    """Turn an error into a message on standard error and an exit code."""
    from shared.errors import SceneworksError
    from shared.extras import ExtraMissing

    try:
        yield
    except SceneworksError as error:
        print_errors([format_error(error)])
        raise typer.Exit(EXIT_REFUSED) from None
    except BrokenPipeError:  # the reader has read enough: `... | head`
        # At its end the interpreter flushes standard output, which would raise the same error once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(0) from None
    except ConnectionError as error:
        print_errors([str(error)])
        raise typer.Exit(EXIT_UNREACHABLE) from None
    except (ChildProcessError, ExtraMissing, FileNotFoundError) as error:
        print_errors([str(error)])
        raise typer.Exit(EXIT_FAILED) from None


def format_error(error: SceneworksError) -> str:
    """Format an error for a terminal: its code, its detail, and a line for each fault inside the request."""
    lines = [f"{error.code}: {error.detail}"]
    lines += [f"  {fault.pointer}: {fault.detail}" for fault in error.errors]
    return "\n".join(lines)


def parse_analyses(models: list[str], assignments: list[str] | None) -> list[JsonObject]:
    """Build the `analyses` of a request from models and `[MODEL.]NAME=VALUE`.

    A parameter without the name of a model goes to every model.
    """
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
    """Parse JSON where it is JSON, otherwise return the text itself."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def print_record(record: Any, as_json: bool, render: Callable[[Any], Any]) -> None:
    """Print a record, as JSON or as `render` formats it."""
    if as_json:
        print_line(json.dumps(record, indent=2))
    else:
        create_console().print(render(record))


def create_console(stderr: bool = False) -> Console:
    """Create the console for tables and progress."""
    from rich.console import Console

    console = Console(stderr=stderr, highlight=False)
    if not console.is_terminal:
        console.width = 240  # otherwise rich folds tables in files and pipes at 80 columns
    return console


def print_errors(lines: list[str]) -> None:
    """Print lines to standard error."""
    for line in lines:
        typer.echo(line, err=True)


def print_line(text: str) -> None:
    """Print a line to standard output."""
    typer.echo(text)
