"""The one loop that all models share: plan, encode batch by batch while the film decodes, infer, decode.

It owns what every room would otherwise repeat: reading ahead, timing, halving a batch that does not fit, progress and
cancellation. It knows no database and no queue: `Report` is how the world looks in.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from shared.catalog import Params
from shared.values import Stage, Video
from worker.models.contract import Inputs, Model, Outcome
from worker.pipeline.material import Material, plan_size, plan_unit
from worker.pipeline.stages import Report, Stages

__all__ = ["Execution", "Report", "Stages", "execute"]


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

    outcome: Outcome
    stages: tuple[Stage, ...]
    video: Video
    frames: int
    frames_decoded: int


def execute(
    model: Model, path: Path, video: Video, inputs: Inputs, params: Params, scratch: Path, stages: Stages
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
    room = model.room
    with stages.running("plan"):
        recalled = bool(inputs.kept) and room.recall is not None
        reread = room.reread(inputs.kept, video) if room.reread and inputs.kept else None
        network = None if recalled else model.network(params)
        plan = None if recalled or reread else room.plan(video, inputs, params, model.placement)
    material = Material(model, network, path, video, inputs, params, scratch, stages)
    with stages.running("encode", of=plan_size(plan, video), unit=plan_unit(plan)):
        read = material.again(reread) if reread else material.read(plan)
    with stages.running("infer"):
        scores = room.recall(inputs.kept) if room.recall and recalled else room.infer(network, read.pieces, params)
    with stages.running("decode"):
        outcome = room.decode(scores, replace(read.film, told=stages.told("decode")), params)
    return Execution(
        outcome, tuple(stages.stages.values()), read.film.video, len(read.film.timeline), read.frames_decoded
    )
