"""Execute one run of one model on one video: plan, encode batch by batch, infer, postprocess."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from shared.catalog import Params
from shared.values import Stage, VideoFacts
from worker.models.contract import LoadedModel, RunInputs, RunOutput
from worker.pipeline.reading import PlanReader, count_plan_units, plan_unit_name
from worker.pipeline.stages import StageTracker


@dataclass(frozen=True, slots=True)
class Execution:
    """What a run yielded and how it went.

    Args:
        outcome: results, and files in the scratch folder.
        stages: with the time spent in each.
        video: facts, with the decode failures counted.
        frames: frames of the film.
        frames_decoded: frames that left the decoder, re-reads for pictures included.
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
    """One run of one model on one film.

    Args:
        model: a room and its network.
        path: the film.
        video: its facts.
        inputs: what the needed runs yielded.
        params: of this run.
        scratch: an empty folder for files.
        stages: progress; its report may raise to stop the run.
    """
    definition = model.definition
    with stages.track_stage("plan"):
        has_cached_scores = bool(inputs.cached_files) and definition.restore_scores is not None
        cached_features = (
            definition.restore_features(inputs.cached_files, video)
            if definition.restore_features and inputs.cached_files
            else None
        )
        network = None if has_cached_scores else model.get_network(params)
        plan = None if has_cached_scores or cached_features else definition.plan(video, inputs, params, model.placement)
    plan_reader = PlanReader(model, network, path, video, inputs, params, scratch, stages)
    with stages.track_stage("encode", total=count_plan_units(plan, video), unit=plan_unit_name(plan)):
        read_result = plan_reader.restore_features(cached_features) if cached_features else plan_reader.read_plan(plan)
    with stages.track_stage("infer"):
        scores = (
            definition.restore_scores(inputs.cached_files)
            if definition.restore_scores and has_cached_scores
            else definition.infer(network, read_result.outputs, params)
        )
    with stages.track_stage("postprocess"):
        outcome = definition.postprocess(
            scores, replace(read_result.context, report_progress=stages.make_progress_callback("postprocess")), params
        )
    return Execution(
        outcome,
        tuple(stages.stages.values()),
        read_result.context.video,
        len(read_result.context.timeline),
        read_result.frames_decoded,
    )
