"""`sceneworks-worker weights`: list, verify, import and pull the weights of the models."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer

from shared.catalog import CATALOG, WeightsSpec, get_model_spec
from shared.errors import InvalidRequest, WeightsCorrupt, WeightsMissing
from shared.settings import get_settings
from worker.cli.errors import EXIT_FAILED, exit_on_error

if TYPE_CHECKING:
    from worker.weights import WeightsManifest

HASH_REMARKS = {None: "", True: "  the published file", False: "  not the published file: fine-tuned, or another"}
"""Remark on a file by the comparison with its published hash: not known, equal, different."""


weights_app = typer.Typer(help="The weights of the models.", no_args_is_help=True)


@weights_app.command("list")
def list_command() -> None:
    """List the weights of every model: whether they are present, their origin, the command that gets them."""
    for spec in _iter_weights_specs():
        presence, side_files = _describe_presence(spec, (get_settings().weights_dir,))
        typer.echo(f"{spec.name}  {presence}  {spec.licence}")
        for line in side_files:
            typer.echo(f"  {line}")
        typer.echo(f"  from {spec.origin}: {spec.how}")


@weights_app.command("verify")
def verify_command() -> None:
    """Compare every weights file with its hash; exit code 1 if one is missing or different."""
    from worker.weights import compute_fingerprint, find_card

    all_present, folders = True, (get_settings().weights_dir,)
    for spec in _iter_weights_specs():
        try:
            typer.echo(f"{spec.name}  present  sha256 {compute_fingerprint(spec, folders)}")
            card_entry = None if spec.sha256 else find_card(spec, folders)
            for side in card_entry[1].sides if card_entry else ():
                typer.echo(f"  {side.name}  present  sha256 {side.sha256}")
        except (WeightsMissing, WeightsCorrupt) as error:
            all_present = False
            typer.echo(f"{spec.name}  {error.code}: {error.detail}")
    if not all_present:
        raise typer.Exit(EXIT_FAILED)


@weights_app.command("import")
def import_command(
    model_name: Annotated[str, typer.Argument(help="Model the weights are for.")],
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="PATH...",
            help="Files as published, in any order, or their folder.",
            exists=True,
            readable=True,
        ),
    ],
) -> None:
    """Import published weights: read them, check every tensor, and store them as safetensors with a card."""
    with exit_on_error():
        _import_files(_load_manifest(model_name), paths)


@weights_app.command("pull")
def pull_command(model_name: Annotated[str, typer.Argument(help="Model to get the weights of.")]) -> None:
    """Download published weights from their hub, compare them with its hash, and import them."""
    from worker.weights.hub import download_weights

    folder = get_settings().weights_dir
    with exit_on_error():
        manifest = _load_manifest(model_name)
        folder.mkdir(parents=True, exist_ok=True)
        # Beside the weights and not in /tmp, which may be too small for them, or on another disk.
        with TemporaryDirectory(prefix=".pull-", dir=folder) as scratch:
            _import_files(manifest, download_weights(manifest, Path(scratch)))


def _iter_weights_specs() -> Iterator[WeightsSpec]:
    return (spec.weights for spec in CATALOG.values() if spec.weights is not None)


def _describe_presence(spec: WeightsSpec, folders: Sequence[Path]) -> tuple[str, list[str]]:
    """Describe whether weights are present, with the hash from catalog or card; and each side file."""
    from worker.weights import find_card
    from worker.weights.pinned import find_weights

    if spec.sha256:
        return f"{'present' if find_weights(spec, folders) else 'missing'}  sha256 {spec.sha256}", []
    try:
        card_entry = find_card(spec, folders)
    except WeightsCorrupt as error:
        return f"{error.code}: {error.detail}", []
    if card_entry is None:
        return "missing", []
    tensors, card = card_entry
    files = {side: "present" if tensors.with_name(side.name).is_file() else "missing" for side in card.sides}
    side_lines = [f"{side.name}  {presence}  sha256 {side.sha256}" for side, presence in files.items()]
    return f"present  sha256 {card.fingerprint}", side_lines


def _load_manifest(model_name: str) -> WeightsManifest:
    """Load the manifest of the files that a model's weights are imported from; InvalidRequest if it has none."""
    spec = get_model_spec(model_name)
    manifest: WeightsManifest | None = getattr(
        import_module(f"worker.models.{model_name}.weights"), "WEIGHTS_MANIFEST", None
    )
    if manifest is None:
        hint = f" Get them with: {spec.weights.how}" if spec.weights else ""
        raise InvalidRequest(f"The weights of {model_name} are not imported.{hint}")
    return manifest


def _import_files(manifest: WeightsManifest, files: Sequence[Path]) -> None:
    from worker.weights import import_weights

    card = import_weights(manifest, files, get_settings().weights_dir, datetime.now(UTC))
    for file in (card.weights, *card.sides):
        typer.echo(f"{file.name}  {file.size} bytes  sha256 {file.sha256}  {card.licence}")
    for source in card.sources:
        typer.echo(f"  from {source.name}  {source.size} bytes  sha256 {source.sha256}{HASH_REMARKS[source.published]}")
