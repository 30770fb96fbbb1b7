"""The one loop that all models share: plan, encode batch by batch while the video decodes, infer, postprocess, render.

It owns what every model would otherwise repeat: reading ahead, timing, halving a batch that does not fit, progress and
cancellation. It knows no database and no queue: a `ProgressReporter` is its only way out.
"""

from worker.pipeline.execute import Execution, execute_run
from worker.pipeline.stages import ProgressReporter, StageTracker

__all__ = ["Execution", "ProgressReporter", "StageTracker", "execute_run"]
