"""Run a story: what the programs that tell one share."""

from __future__ import annotations

import sys

from mmjepa.errors import UserError
from mmjepa.pipeline.stages import ROOT, StageFailed, cores, ended_by_signals, finished_stages, run_stages
from mmjepa.pipeline.story import PipelineConfig, story


def run_story(config: PipelineConfig) -> None:
    """Shards, pretraining of every variant and seed, text heads, retrieval under frame dropout, probes, report.

    Prints every command before it runs, and the report's summary in the end. If a stage fails, what does not need it
    still runs; the process then ends with code 1 and the end of the stage's log, and the same command goes on.
    """
    stages = story(config)
    work = ROOT / config.work
    finished_stages(stages, work / "logs")  # refuses changed settings before their commands are written
    try:
        work.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"work={config.work}: cannot make the folder ({error.strerror})") from error
    (work / "commands.txt").write_text("".join(f"{stage.shown()}\n" for stage in stages))
    try:
        with ended_by_signals():
            run_stages(stages, config.jobs or cores(), work / "logs")
    except StageFailed as error:
        print(f"\nfailed: {error}", file=sys.stderr)
        sys.exit(1)
    print("\n" + (work / "logs" / "report.log").read_text().rstrip())
