"""What runs a story from no data to a report: commands as stages, skipped where they are done already."""

from mmjepa.pipeline.run import run_story
from mmjepa.pipeline.stages import ROOT, Stage, StageFailed, run_stages
from mmjepa.pipeline.story import PipelineConfig, story

__all__ = ["ROOT", "PipelineConfig", "Stage", "StageFailed", "run_stages", "run_story", "story"]
