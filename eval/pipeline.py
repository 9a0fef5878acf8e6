"""Run the whole story, from no data to a report: ``python eval/pipeline.py pipeline=demo [work=runs/demo]``.

Every stage is a command that is printed before it runs. The same command restarts a story that was cut off; finished
stages are skipped.
"""

from __future__ import annotations

import sys

from mmjepa.config import run_program
from mmjepa.pipeline import (
    ROOT,
    PipelineConfig,
    StageFailed,
    cores,
    ended_by_signals,
    finished_stages,
    run_stages,
    story,
)


def main(config: PipelineConfig) -> None:
    """Shards, pretraining of every variant and seed, text heads, retrieval under frame dropout, probes, report."""
    stages = story(config)
    work = ROOT / config.work
    finished_stages(stages, work / "logs")  # refuses changed settings before their commands are written
    work.mkdir(parents=True, exist_ok=True)
    (work / "commands.txt").write_text("".join(f"{stage.shown()}\n" for stage in stages))
    try:
        with ended_by_signals():
            run_stages(stages, config.jobs or cores(), work / "logs")
    except StageFailed as error:
        print(f"\nfailed: {error}", file=sys.stderr)
        sys.exit(1)
    print("\n" + (work / "logs" / "report.log").read_text().rstrip())


if __name__ == "__main__":
    run_program("pipeline", PipelineConfig, main)
