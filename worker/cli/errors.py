"""Exit codes of `sceneworks-worker`, and errors turned into messages."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer

from shared.errors import CallersFault, SceneworksError

# As in the shell: 2 is wrong usage, which trying again cannot mend; 1 is everything else.
EXIT_FAILED, EXIT_REFUSED = 1, 2


@contextmanager
def exit_on_error() -> Iterator[None]:
    """Print an error of ours and exit: code 2 if the caller can correct it, otherwise 1."""
    try:
        yield
    except SceneworksError as error:
        typer.echo(f"{error.code}: {error.detail}", err=True)
        for fault in error.errors:
            typer.echo(f"  {fault.pointer}: {fault.detail}", err=True)
        raise typer.Exit(EXIT_REFUSED if isinstance(error, CallersFault) else EXIT_FAILED) from None
