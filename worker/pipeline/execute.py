"""Execute one run of one model on one video: plan, encode batch by batch, infer, postprocess, render."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from shared.catalog import Params
from shared.values import OutputFile, Result, Stage, VideoFacts
from worker.models.contract import (
    AnyModelDefinition,
    CachedFeatures,
    LoadedModel,
    ModelOutput,
    ProgressCallback,
    RenderContext,
    RunInputs,
    RunOutput,
)
from worker.pipeline.reading import PlanReader, count_plan_units, plan_unit_name
from worker.pipeline.stages import StageTracker


@dataclass(frozen=True, slots=True)
class Execution:
    """What a run yielded and how it went.

    Args:
        outcome: results, and files in the scratch folder.
        stages: with the time spent in each.
        video: facts, with the decode failures counted.
        frames: frames of the video.
        frames_decoded: frames that left the decoder, those decoded again for keyframes included.
    """

    outcome: RunOutput
    stages: tuple[Stage, ...]
    video: VideoFacts
    frames: int
    frames_decoded: int


def execute_run(
    model: LoadedModel,
    path: Path,
    video: VideoFacts,
    inputs: RunInputs,
    params: Params,
    scratch: Path,
    stages: StageTracker,
) -> Execution:
    """Execute one run of one model on one video.

    Args:
        model: the model with its network.
        path: the video.
        video: its facts.
        inputs: outputs of the needed runs.
        params: of this run.
        scratch: an empty folder for files.
        stages: progress; its reporter may raise to stop the run.
    """
    definition = model.definition
    with stages.track_stage("plan"):
        cached_scores, cached_features = _restore_cached(definition, inputs, video)
        # Scores or features of an earlier run make the network, or at least the video, unnecessary: neither is loaded.
        network = None if cached_scores else model.get_network(params)
        is_cached = cached_scores is not None or cached_features is not None
        plan = None if is_cached else definition.plan(video, inputs, params, model.placement)
    plan_reader = PlanReader(model, network, path, video, inputs, params, scratch, stages)
    with stages.track_stage("encode", total=count_plan_units(plan, video), unit=plan_unit_name(plan)):
        read_result = plan_reader.restore_features(cached_features) if cached_features else plan_reader.read_plan(plan)
    with stages.track_stage("infer"):
        scores = cached_scores() if cached_scores else definition.infer(network, read_result.outputs, params)
    with stages.track_stage("postprocess"):
        output = definition.postprocess(scores, read_result.context, params)
    with stages.track_stage("render"):
        render_context = RenderContext(read_result.context, path, scratch, read_result.keyframes_zip)
        files = write_files(definition, output, render_context, params, stages.make_progress_callback("render"))
    run_output = RunOutput(output.results, files, output.embeddings)
    context, finished_stages = read_result.context, tuple(stages.stages.values())
    return Execution(run_output, finished_stages, context.video, len(context.timeline), read_result.frames_decoded)


def _restore_cached(
    definition: AnyModelDefinition, inputs: RunInputs, video: VideoFacts
) -> tuple[Callable[[], Any] | None, CachedFeatures[Any] | None]:
    """Return what an earlier run that encoded alike has left: how to read its scores, or else its features."""
    if not inputs.cached_files:
        return None, None
    if definition.restore_scores is not None:
        return partial(definition.restore_scores, inputs.cached_files), None
    if definition.restore_features is not None:
        return None, definition.restore_features(inputs.cached_files, video)
    return None, None


def write_files(
    definition: AnyModelDefinition,
    output: ModelOutput,
    context: RenderContext,
    params: Params,
    report_progress: ProgressCallback,
) -> tuple[OutputFile, ...]:
    """Save the arrays of `postprocess`, then render; a model without `render` is done at once."""
    array_files = tuple(array.save_in(context.scratch) for array in output.arrays)
    if definition.render is None:
        return array_files
    results: Sequence[Result] = output.results
    return array_files + definition.render(results, context, params, report_progress)
