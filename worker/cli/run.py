"""`sceneworks-worker run`: run one model on one video, with its artifacts in a folder."""

from __future__ import annotations

import json
import shutil
from hashlib import file_digest
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shared.catalog import CATALOG, Params, get_model_spec
from shared.errors import InvalidRequest
from shared.settings import get_settings
from shared.values import Artifact, OutputFile, VideoFacts, new_id
from worker.cli.errors import exit_on_error
from worker.cli.progress import ProgressPrinter

if TYPE_CHECKING:
    from worker.pipeline import StageTracker
    from worker.pipeline.execute import Execution


def run_command(
    file: Annotated[Path, typer.Argument(help="A video.", exists=True, dir_okay=False, readable=True)],
    model_name: Annotated[str, typer.Option("--model", "-m", help="Model to run.")],
    param: Annotated[
        list[str] | None,
        typer.Option(
            "--param",
            "-p",
            metavar="NAME=VALUE",
            help="Parameter, as JSON or text; repeatable. Of a needed model: `shots.detector=hsv_luv`.",
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the artifacts.", file_okay=False)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object in the API's record shapes.")] = False,
    allow_damaged: Annotated[bool, typer.Option(help="Accept a file that is cut off.")] = False,
) -> None:
    """Run a model on a file."""
    with exit_on_error():
        report = run_model(file, model_name, _parse_params(param), out, allow_damaged=allow_damaged)
    if as_json:
        typer.echo(json.dumps(report, indent=2))
    else:
        _print_report(report)


def run_model(
    file: Path, model_name: str, raw_params: dict[str, Any], out: Path | None, *, allow_damaged: bool = False
) -> dict[str, Any]:
    """Run a model: `{"video": ..., "results": [...], "artifacts": [...], "stages": [...]}` in the API's record shapes.

    The models that it needs are run first, and their results and artifacts come before its own.

    Args:
        file: the video.
        model_name: the model.
        raw_params: its parameters; those of a needed run under its name and a dot, such as `shots.detector`.
        out: folder for the artifacts.
        allow_damaged: accept a file that is cut off.

    Raises:
        SceneworksError: the file, the weights or the device cannot be used.
    """
    from worker.video.probe import probe_video  # here, as with torch: `--help` must not wait for the import

    params = _params_by_model(model_name, raw_params)
    executions: dict[str, Execution] = {}
    with TemporaryDirectory(prefix="sceneworks-") as scratch:
        video = probe_video(file, allow_damaged=allow_damaged)
        for model_id in params:
            stages = _execute_model(file, video, model_id, params[model_id], Path(scratch), executions)
        output_files = [file for execution in executions.values() for file in execution.outcome.files]
        with stages.track_stage("store", total=max(1, len(output_files)), unit="file"):
            artifacts = [_save_artifact(output_file, out) for output_file in output_files]
    return {
        "video": next(iter(executions.values())).video.to_dict(),
        "results": [result.to_dict() for execution in executions.values() for result in execution.outcome.results],
        "artifacts": [artifact.to_dict() for artifact in artifacts],
        "stages": [stage.to_dict() for stage in stages.current_progress().stages],
    }


def _params_by_model(model_name: str, raw_params: dict[str, Any]) -> dict[str, Params]:
    """Validate the parameters of the models to be run, needed models first; InvalidRequest."""
    spec = get_model_spec(model_name)
    raw_by_model: dict[str, dict[str, Any]] = {each: {} for each in (*spec.needs, model_name)}
    for key, value in raw_params.items():
        owner, dot, name = key.partition(".")
        if dot and owner in spec.needs:
            raw_by_model[owner][name] = value
        else:
            raw_by_model[model_name][key] = value
    needs = spec.needs_for(spec.read_params(raw_by_model[model_name]))
    unused_needs = [each for each in spec.needs if each not in needs and raw_by_model[each]]
    if unused_needs:
        raise InvalidRequest(
            f"With these parameters {model_name} does not need {unused_needs[0]}, so it takes no parameters for it."
        )
    return {each: get_model_spec(each).read_params(raw_by_model[each]) for each in (*needs, model_name)}


def _execute_model(
    file: Path, video: VideoFacts, model_name: str, params: Params, scratch: Path, executions: dict[str, Execution]
) -> StageTracker:
    """Run one model, add it to `executions` and return its stages."""
    import torch

    from worker.models import load_definition
    from worker.models.contract import LoadedModel, RunInputs
    from worker.pipeline import StageTracker
    from worker.pipeline.execute import execute_run
    from worker.runtime.placement import resolve_placement

    config = get_settings()
    placement = resolve_placement(config.device, config.precision, config.runtime, config.threads)
    torch.set_num_threads(placement.threads)
    # One model at a time: each is dropped before the next one is loaded.
    model = LoadedModel(load_definition(model_name), placement, (config.weights_dir,))
    stages = StageTracker(ProgressPrinter())
    needed = {need: executions[need].outcome for need in CATALOG[model_name].needs_for(params)}
    results = {need: outcome.results for need, outcome in needed.items()}
    files = {need: {file.kind: file.path for file in outcome.files} for need, outcome in needed.items()}
    folder = scratch / model_name
    folder.mkdir()
    executions[model_name] = execute_run(model, file, video, RunInputs(results, files), params, folder, stages)
    return stages


def _save_artifact(output_file: OutputFile, out: Path | None) -> Artifact:
    with output_file.path.open("rb") as file:
        sha256 = file_digest(file, "sha256").hexdigest()
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(output_file.path, out / output_file.name)
    return Artifact(
        new_id("art"),
        output_file.kind,
        output_file.name,
        output_file.media_type,
        sha256,
        output_file.path.stat().st_size,
    )


def _print_report(report: dict[str, Any]) -> None:
    for result in report["results"]:
        start, end = result["start"], result["end"]
        when = f"{start['frame']}-{end['frame']}  {start['timecode']} - {end['timecode']}" if start else ""
        typer.echo(f"{result['kind']} {result['seq']}  {when}  {json.dumps(result['data'])}")
    for artifact in report["artifacts"]:
        typer.echo(f"{artifact['kind']}  {artifact['name']}  {artifact['size']} bytes  sha256 {artifact['sha256']}")


def _parse_params(pairs: list[str] | None) -> dict[str, Any]:
    params: dict[str, Any] = {}
    for pair in pairs or []:
        name, equals, value = pair.partition("=")
        if not equals:
            raise typer.BadParameter(f"{pair!r} is not NAME=VALUE", param_hint="--param")
        # Numbers, booleans and lists are JSON; whatever is not JSON is text, so that plain words need no quotes.
        try:
            params[name] = json.loads(value)
        except json.JSONDecodeError:
            params[name] = value
    return params
