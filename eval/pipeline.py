"""Run the whole story, from no data to a report: ``python eval/pipeline.py pipeline=demo [work=runs/demo]``.

Every stage is a command that is printed before it runs. The same command restarts a story that was cut off; finished
stages are skipped.
"""

from __future__ import annotations

from mmjepa.config import run_program
from mmjepa.pipeline import PipelineConfig, run_story

if __name__ == "__main__":
    run_program("pipeline", PipelineConfig, run_story)
