"""Run the study of the objectives, variants x seeds: ``python eval/study.py [seeds=[0,1,2]] [work=runs/study]``.

A pipeline (see eval/pipeline.py) of equal budgets: it uses every core, and the same command goes on where it was cut
off. Its report holds the table of the study (per task: mean, interval over seeds and videos, paired difference to the
seed-matched baseline), the published figures, and the paper's claims one by one; probe_rows.csv beside it is the tidy
file of all rows.
"""

from __future__ import annotations

from mmjepa.config import run_program
from mmjepa.pipeline import PipelineConfig, run_story

if __name__ == "__main__":
    run_program("study", PipelineConfig, run_story)
