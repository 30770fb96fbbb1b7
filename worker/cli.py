"""The command `sceneworks-worker`: a model on a file, without queue, database or server.

torch is imported by the commands that compute: `--help` and `weights list` stay quick.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from fractions import Fraction
from hashlib import file_digest
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shared.catalog import MENU, Params, WeightsSpec, model
from shared.errors import CallersFault, InvalidRequest, SceneworksError, WeightsCorrupt, WeightsMissing
from shared.extras import ExtraMissing, missing_extras_explained
from shared.settings import settings
from shared.values import Artifact, FileMade, Progress, Stage, Video, new_id

if TYPE_CHECKING:
    from worker.encoders.published import Published
    from worker.pipeline import Execution, Stages

FAILED, REFUSED = 1, 2
LINE_EVERY_S = 2.0
REDRAW_EVERY_S = 0.1
KNOWN = {None: "", True: "  the published file", False: "  not the published file: fine-tuned, or another"}
"""What is said of a file whose published hash is not known, that has it, and that has another."""

app = typer.Typer(
    help="Run models on this machine. Exit codes: 0 done, 1 it went wrong, 2 refused.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
weights = typer.Typer(help="The weights of the models.", no_args_is_help=True)
app.add_typer(weights, name="weights")


def main() -> None:
    """Entry point."""
    try:
        with missing_extras_explained():
            app()
    except ExtraMissing as error:
        typer.echo(str(error), err=True)
        sys.exit(REFUSED)


@app.command()
def run(
    file: Annotated[Path, typer.Argument(help="A video.", exists=True, dir_okay=False, readable=True)],
    name: Annotated[str, typer.Option("--model", "-m", help="Model to run.")],
    param: Annotated[
        list[str] | None,
        typer.Option(
            "--param",
            "-p",
            metavar="NAME=VALUE",
            help="Parameter, as JSON or text; may be given again. That of a needed run: `shots.detector=hsv_luv`.",
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the artifacts.", file_okay=False)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object in the API's record shapes.")] = False,
    allow_damaged: Annotated[bool, typer.Option(help="Take a file that is cut off, as far as it goes.")] = False,
) -> None:
    """Run a model on a file."""
    with _said():
        answer = perform(file, name, _params(param), out, allow_damaged=allow_damaged)
    if as_json:
        typer.echo(json.dumps(answer, indent=2))
    else:
        _print(answer)


@weights.command("list")
def list_weights() -> None:
    """List the weights of every model: whether they are here, where they come from, the command that gets them."""
    for spec in _weights():
        presence, beside = _presence(spec, (settings().weights_dir,))
        typer.echo(f"{spec.name}  {presence}  {spec.licence}")
        for side in beside:
            typer.echo(f"  {side}")
        typer.echo(f"  from {spec.origin}: {spec.how}")


@weights.command("verify")
def verify_weights() -> None:
    """Compare every weights file with its hash; exit code 1 when one is missing or another."""
    from worker.encoders.published import find_card, fingerprint

    right, folders = True, (settings().weights_dir,)
    for spec in _weights():
        try:
            typer.echo(f"{spec.name}  present  sha256 {fingerprint(spec, folders)}")
            found = None if spec.sha256 else find_card(spec, folders)
            for side in found[1].sides if found else ():
                typer.echo(f"  {side.name}  present  sha256 {side.sha256}")
        except (WeightsMissing, WeightsCorrupt) as error:
            right = False
            typer.echo(f"{spec.name}  {error.code}: {error.detail}")
    if not right:
        raise typer.Exit(FAILED)


@weights.command("import")
def import_weights(
    room: Annotated[str, typer.Argument(help="Model the weights are for.")],
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
    """Take published weights in: read them once, check every tensor, and keep them as safetensors with a card."""
    with _said():
        _take_in(_published(room), paths)


@weights.command("pull")
def pull_weights(room: Annotated[str, typer.Argument(help="Model to get the weights of.")]) -> None:
    """Download published weights from their hub, compare them with its hash, and take them in."""
    from worker.encoders.hub import pull

    folder = settings().weights_dir
    with _said():
        declared = _published(room)
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=".pull-", dir=folder) as scratch:
            _take_in(declared, pull(declared, Path(scratch)))


@app.command()
def motion(
    file: Annotated[Path, typer.Argument(help="H.264 or MPEG-4.", exists=True, dir_okay=False, readable=True)],
    out: Annotated[Path, typer.Option(help="Folder for the picture and the numbers.", file_okay=False)] = Path(),
    start: Annotated[float, typer.Option(min=0, help="Seconds since the first frame.")] = 0,
    frames: Annotated[int, typer.Option(min=1, help="How many to read.")] = 100,
    grid: Annotated[int, typer.Option(min=8, max=256, help="Pixels of a cell.")] = 16,
    dense: Annotated[bool, typer.Option("--dense", help="Keep a vector for each pixel, not for each cell.")] = False,
) -> None:
    """Read how a film moves from its motion vectors: a picture (PNG), numbers (NPZ) and a summary."""
    from worker.video.pictures.arrows import study

    with _said():
        out.mkdir(parents=True, exist_ok=True)
        made = study(file, out, Fraction(str(start)), frames, grid, whole=dense)
    typer.echo("\n".join([made.text(), *map(str, made.files)]))


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []})
def bench(context: typer.Context) -> None:
    """Measure the worker against ffmpeg and the published models; `bench --help` tells more."""
    from worker.bench import main as measure

    raise typer.Exit(measure(context.args))


@app.command()
def serve() -> None:
    """Take runs from the queue: the same as `python -m worker.main`."""
    from worker.main import main as boot

    boot()


def perform(
    file: Path, name: str, raw: dict[str, Any], out: Path | None, *, allow_damaged: bool = False
) -> dict[str, Any]:
    """A run: `{"video": ..., "results": [...], "artifacts": [...], "stages": [...]}` in the API's record shapes.

    The runs that the model needs are done first, and their results and artifacts stand before its own.

    Args:
        file: the film.
        name: the model.
        raw: its parameters; those of a needed run under its name and a dot, such as `shots.detector`.
        out: folder for the artifacts.
        allow_damaged: take a file that is cut off.

    Raises:
        SceneworksError: the file, the weights or the device cannot be used.
    """
    from worker.video.probe import probe

    params = _by_model(name, raw)
    done: dict[str, Execution] = {}
    with TemporaryDirectory(prefix="sceneworks-") as scratch:
        video = probe(file, allow_damaged=allow_damaged)
        for each in params:
            stages = _execute(file, video, each, params[each], Path(scratch), done)
        made = [made for execution in done.values() for made in execution.outcome.files]
        with stages.running("store", of=max(1, len(made)), unit="file"):
            artifacts = [_keep(one, out) for one in made]
    return {
        "video": next(iter(done.values())).video.record(),
        "results": [result.record() for execution in done.values() for result in execution.outcome.results],
        "artifacts": [artifact.record() for artifact in artifacts],
        "stages": [stage.record() for stage in stages.progress().stages],
    }


def _by_model(name: str, raw: dict[str, Any]) -> dict[str, Params]:
    """Checked parameters of the models to be run, needs first; InvalidRequest."""
    spec = model(name)
    inside: dict[str, dict[str, Any]] = {each: {} for each in (*spec.needs, name)}
    for key, value in raw.items():
        owner, dot, rest = key.partition(".")
        inside[owner if dot and owner in spec.needs else name][rest if dot and owner in spec.needs else key] = value
    needs = spec.needs_for(spec.read_params(inside[name]))
    idle = [each for each in spec.needs if each not in needs and inside[each]]
    if idle:
        raise InvalidRequest(f"With these parameters {name} does not need {idle[0]}, so it takes no parameters for it.")
    return {each: model(each).read_params(inside[each]) for each in (*needs, name)}


def _execute(file: Path, video: Video, name: str, params: Params, scratch: Path, done: dict[str, Execution]) -> Stages:
    """One run, into `done`; its stages."""
    import torch

    from worker.models import load
    from worker.models.contract import Inputs, Model
    from worker.models.placement import place
    from worker.pipeline import Stages, execute

    config = settings()
    placement = place(config.device, config.precision, config.runtime, config.threads)
    torch.set_num_threads(placement.threads)
    ready, stages = Model(load(name), placement, (config.weights_dir,)), Stages(Screen())
    needed = {need: done[need].outcome for need in MENU[name].needs_for(params)}
    results = {need: outcome.results for need, outcome in needed.items()}
    files = {need: {file.kind: file.path for file in outcome.files} for need, outcome in needed.items()}
    folder = scratch / name
    folder.mkdir()
    done[name] = execute(ready, file, video, Inputs(results, files), params, folder, stages)
    return stages


def _keep(made: FileMade, out: Path | None) -> Artifact:
    with made.path.open("rb") as file:
        sha256 = file_digest(file, "sha256").hexdigest()
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(made.path, out / made.name)
    return Artifact(new_id("art"), made.kind, made.name, made.media_type, sha256, made.path.stat().st_size)


class Screen:
    """Progress on standard error: one line that moves in a terminal, a line now and then elsewhere."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._stage = ""
        self._at = 0.0

    def progress(self, progress: Progress) -> None:
        """So far."""
        stage = next((stage for stage in progress.stages if stage.state == "running"), None)
        now = time.monotonic()
        pause = REDRAW_EVERY_S if self._terminal else LINE_EVERY_S
        if stage is None or (stage.name == self._stage and now - self._at < pause):
            return
        self._stage, self._at = stage.name, now
        start, end = ("\r\x1b[K", "") if self._terminal else ("", "\n")
        print(f"{start}{_facts(stage, progress.eta)}", end=end, file=sys.stderr, flush=True)

    def note(self, action: str, **facts: Any) -> None:
        """Something worth a line."""
        words = " ".join(f"{name}={value}" for name, value in facts.items())
        print(f"{action} {words}", file=sys.stderr, flush=True)


def _facts(stage: Stage, eta: float | None) -> str:
    rate = f"  {stage.per_second:.1f}/s" if stage.per_second else ""
    to_go = f"  {eta:.0f} s to go" if eta is not None else ""
    return f"{stage.name}: {stage.done}/{stage.of} {stage.unit}s{rate}{to_go}"


def _print(answer: dict[str, Any]) -> None:
    for result in answer["results"]:
        start, end = result["start"], result["end"]
        when = f"{start['frame']}-{end['frame']}  {start['timecode']} - {end['timecode']}" if start else ""
        typer.echo(f"{result['kind']} {result['seq']}  {when}  {json.dumps(result['data'])}")
    for artifact in answer["artifacts"]:
        typer.echo(f"{artifact['kind']}  {artifact['name']}  {artifact['size']} bytes  sha256 {artifact['sha256']}")


@contextmanager
def _said() -> Iterator[None]:
    """Turn what went wrong into words and an exit code."""
    try:
        yield
    except SceneworksError as error:
        typer.echo(f"{error.code}: {error.detail}", err=True)
        for fault in error.errors:
            typer.echo(f"  {fault.pointer}: {fault.detail}", err=True)
        raise typer.Exit(REFUSED if isinstance(error, CallersFault) else FAILED) from None


def _params(pairs: list[str] | None) -> dict[str, Any]:
    params: dict[str, Any] = {}
    for pair in pairs or []:
        name, equals, value = pair.partition("=")
        if not equals:
            raise typer.BadParameter(f"{pair!r} is not NAME=VALUE", param_hint="--param")
        try:
            params[name] = json.loads(value)
        except json.JSONDecodeError:
            params[name] = value
    return params


def _weights() -> Iterator[WeightsSpec]:
    return (spec.weights for spec in MENU.values() if spec.weights is not None)


def _presence(spec: WeightsSpec, folders: Sequence[Path]) -> tuple[str, list[str]]:
    """Present or missing, with the hash that menu or card gives: the weights, and each file beside them."""
    from worker.encoders.published import find_card
    from worker.encoders.weights import locate

    if spec.sha256:
        return f"{'present' if locate(spec, folders) else 'missing'}  sha256 {spec.sha256}", []
    try:
        found = find_card(spec, folders)
    except WeightsCorrupt as error:
        return f"{error.code}: {error.detail}", []
    if found is None:
        return "missing", []
    tensors, card = found
    files = {side: "present" if tensors.with_name(side.name).is_file() else "missing" for side in card.sides}
    beside = [f"{side.name}  {presence}  sha256 {side.sha256}" for side, presence in files.items()]
    return f"present  sha256 {card.fingerprint}", beside


def _published(name: str) -> Published:
    """What a room says of the files that its weights are imported from; InvalidRequest where it imports none."""
    spec = model(name)
    declared: Published | None = getattr(import_module(f"worker.models.{name}.weights"), "PUBLISHED", None)
    if declared is None:
        how = f" Get them with: {spec.weights.how}" if spec.weights else ""
        raise InvalidRequest(f"The weights of {name} are not imported.{how}")
    return declared


def _take_in(declared: Published, files: Sequence[Path]) -> None:
    from worker.encoders.published import import_weights

    card = import_weights(declared, files, settings().weights_dir, datetime.now(UTC))
    for file in (card.weights, *card.sides):
        typer.echo(f"{file.name}  {file.size} bytes  sha256 {file.sha256}  {card.licence}")
    for source in card.sources:
        typer.echo(f"  from {source.name}  {source.size} bytes  sha256 {source.sha256}{KNOWN[source.published]}")


if __name__ == "__main__":
    main()
