"""The pipeline: what it runs, what it skips, and how it fails. Stages here are one-line Python programs."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from threading import Thread

import psutil
import pytest

from mmjepa.config import load_config
from mmjepa.errors import UserError
from mmjepa.pipeline import ROOT, PipelineConfig, Stage, StageFailed, run_stages, story
from mmjepa.pipeline.stages import ended_by_signals


def stage(folder: Path, name: str, code: str = "", needs: tuple[str, ...] = ()) -> Stage:
    """A stage that runs ``code``, then writes its marker."""
    marker = folder / f"{name}.done"
    return Stage(name, [sys.executable, "-c", f"{code}\nopen({str(marker)!r}, 'a').write('x')"], needs, marker)


def test_stages_run_once_and_after_what_they_need(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = f"assert open({str(tmp_path / 'first.done')!r}).read() == 'x'"
    stages = [stage(tmp_path, "second", code, ("first",)), stage(tmp_path, "first", "import time; time.sleep(0.3)")]
    run_stages(stages, 2, tmp_path / "logs")
    assert "first: python -c" in capsys.readouterr().out
    run_stages(stages, 2, tmp_path / "logs")
    assert (tmp_path / "second.done").read_text() == "x"
    assert "already done: second, first" in capsys.readouterr().out


def test_independent_stages_run_side_by_side_up_to_jobs(tmp_path: Path) -> None:
    # Each waits for the other's sign of life: with one job at a time neither could end.
    wait = "while not pathlib.Path({other!r}).exists(): time.sleep(0.01)"
    meet = "import pathlib, time\npathlib.Path({mine!r}).touch()\n" + wait
    a, b = str(tmp_path / "a"), str(tmp_path / "b")
    stages = [
        stage(tmp_path, "left", meet.format(mine=a, other=b)),
        stage(tmp_path, "right", meet.format(mine=b, other=a)),
    ]
    run_stages(stages, 2, tmp_path / "logs")


def test_failure_shows_the_log_and_leaves_out_only_what_needs_the_stage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stages = [
        stage(tmp_path, "bad", "raise SystemExit('the disk is full')"),
        stage(tmp_path, "after", "", ("bad",)),
        stage(tmp_path, "last", "", ("after", "other")),
        stage(tmp_path, "other", "import time; time.sleep(0.5)"),
        stage(tmp_path, "beside", "", ("other",)),
    ]
    message = r"(?s)stage bad ended with code 1.*the disk is full.*not run, for they need it: after, last$"
    with pytest.raises(StageFailed, match=message):
        run_stages(stages, 1, tmp_path / "logs")
    assert "bad: FAILED" in capsys.readouterr().out
    assert {one.stem for one in tmp_path.glob("*.done")} == {"other", "beside"}
    run_stages([stages[3], stages[4]], 1, tmp_path / "logs")
    assert "already done: other, beside" in capsys.readouterr().out


def test_what_a_failed_stage_has_started_ends_with_it(tmp_path: Path) -> None:
    child = tmp_path / "child"
    code = f"import subprocess, pathlib; p = subprocess.Popen(['sleep', '60']); pathlib.Path({str(child)!r})"
    with pytest.raises(StageFailed):
        run_stages([stage(tmp_path, "bad", f"{code}.write_text(str(p.pid)); 1 / 0")], 1, tmp_path / "logs")
    with contextlib.suppress(psutil.NoSuchProcess):  # or a zombie, until its new parent looks
        assert psutil.Process(int(child.read_text())).status() == psutil.STATUS_ZOMBIE


def test_stage_that_leaves_no_marker_has_failed(tmp_path: Path) -> None:
    silent = Stage("silent", [sys.executable, "-c", ""], (), tmp_path / "silent.done")
    with pytest.raises(StageFailed, match="without writing"):
        run_stages([silent], 1, tmp_path / "logs")


def test_what_needs_a_stage_that_ran_again_runs_again(tmp_path: Path) -> None:
    stages = [stage(tmp_path, "first"), stage(tmp_path, "second", "", ("first",)), stage(tmp_path, "alone")]
    run_stages(stages, 2, tmp_path / "logs")
    (tmp_path / "first.done").unlink()
    run_stages(stages, 2, tmp_path / "logs")
    assert {name: (tmp_path / f"{name}.done").read_text() for name in ("first", "second", "alone")} == {
        "first": "x",
        "second": "xx",
        "alone": "x",
    }


def test_results_of_other_settings_are_refused(tmp_path: Path) -> None:
    first = Stage("one", [sys.executable, "-c", f"open({str(tmp_path / 'm')!r}, 'w')", "steps=5"], (), tmp_path / "m")
    run_stages([first], 1, tmp_path / "logs")
    changed = Stage("one", [*first.command[:-1], "steps=6"], (), tmp_path / "m")
    with pytest.raises(UserError, match=r"other settings \(steps=5 there, steps=6 here\)"):
        run_stages([changed], 1, tmp_path / "logs")


def test_another_port_is_no_other_setting() -> None:
    settings = [[one.settings() for one in demo().values()] for _ in range(2)]
    assert settings[0] == settings[1]


def test_end_of_the_pipeline_is_the_end_of_its_stages(tmp_path: Path) -> None:
    alive = tmp_path / "alive"
    deaf = tmp_path / "deaf.py"
    deaf.write_text(f"""
import os, signal, time
signal.signal(signal.SIGTERM, lambda *_: None)
open({str(alive)!r}, "w").write(str(os.getpid()))
for _ in range(60):
    time.sleep(1)
""")
    code = f"""
import sys
from pathlib import Path
import mmjepa.pipeline.stages as pipeline
pipeline.GRACE_SECONDS = 1.0
with pipeline.ended_by_signals():
    stage = pipeline.Stage("deaf", [sys.executable, {str(deaf)!r}])
    pipeline.run_stages([stage], 1, Path({str(tmp_path / "logs")!r}))
"""
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
    while not (alive.exists() and alive.read_text()):
        time.sleep(0.05)
    process.terminate()
    assert process.wait(20) == 128 + 15
    assert not Path(f"/proc/{alive.read_text()}").exists()


def test_a_stage_whose_launcher_ends_at_once_may_still_save(tmp_path: Path) -> None:
    saves = tmp_path / "saves.py"
    saves.write_text(f"""
import pathlib, signal, sys, time
def save(*_):
    time.sleep(1)
    pathlib.Path({str(tmp_path / "saved")!r}).touch()
    sys.exit()
signal.signal(signal.SIGTERM, save)
pathlib.Path({str(tmp_path / "ready")!r}).touch()
time.sleep(60)
""")
    launch = f"import subprocess, sys; subprocess.run([sys.executable, {str(saves)!r}])"

    def end() -> None:
        while not (tmp_path / "ready").exists():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    Thread(target=end, daemon=True).start()
    with pytest.raises(SystemExit), ended_by_signals():
        run_stages([Stage("launch", [sys.executable, "-c", launch])], 1, tmp_path / "logs")
    assert (tmp_path / "saved").exists()


def demo(*overrides: str) -> dict[str, Stage]:
    """Stages of the demo by name."""
    return {one.name: one for one in story(load_config("pipeline", PipelineConfig, list(overrides)))}


def test_every_stage_comes_after_what_it_needs() -> None:
    seen: set[str] = set()
    for one in demo("seeds=[0,1]").values():
        assert seen.issuperset(one.needs)
        seen.add(one.name)


def test_every_encoder_and_control_is_aligned_retrieved_and_probed_and_the_report_waits_for_all() -> None:
    stages = demo("variants=[baseline,ld]", "seeds=[3,4]")
    encoders = {f"{name}-{seed}" for name in ("baseline", "ld", "random_init") for seed in (3, 4)} | {"raw_patches-3"}
    for kind in ("align", "retrieval", "probe"):
        assert {name.removeprefix(f"{kind}-") for name in stages if name.startswith(kind)} == encoders
    assert set(stages["report"].needs) == {f"{kind}-{name}" for kind in ("retrieval", "probe") for name in encoders}


def test_a_study_probes_replicated_and_single_variants_and_can_leave_retrieval_and_raw_patches_out() -> None:
    stages = {one.name: one for one in story(load_config("study", PipelineConfig, ["seeds=[0,1,2]"]))}
    runs = [name.removeprefix("train-") for name in stages if name.startswith("train-")]
    assert {"fwm_hw_ld-0", "fwm_hw_ld-2", "spectral-0"} <= set(runs)
    assert "spectral-1" not in runs
    assert runs.index("delta-0") < runs.index("baseline-1") < runs.index("spectral-0")  # balanced if it is cut short
    assert not any(name.startswith(("align", "retrieval")) or "raw_patches" in name for name in stages)
    factors = [f"{one}_{part}-2" for one in ("baseline", "fwm", "fwm_hw_ld") for part in ("appearance", "dynamics")]
    assert {f"probe-{name}" for name in factors} <= set(stages)
    assert "encoder.factor=dynamics" in stages["probe-fwm_dynamics-2"].command
    factors = [name.removeprefix("probe-") for name in stages if "_appearance" in name or "_dynamics" in name]
    probes = {f"probe-{run}" for run in (*runs, *factors, *(f"random_init-{seed}" for seed in range(3)))}
    assert set(stages["report"].needs) == probes
    assert "published=results/published.csv" in stages["report"].command
    with pytest.raises(UserError, match="no experiment sprites/nope"):
        load_config("study", PipelineConfig, ["variants=[baseline,nope]"])
    with pytest.raises(UserError, match="factors: fwm stands neither"):
        load_config("study", PipelineConfig, ["variants=[baseline]", "once=[]"])
    with pytest.raises(UserError, match="ld stands in variants and in once"):
        load_config("pipeline", PipelineConfig, ["variants=[ld]", "once=[ld]"])


def test_commands_are_those_a_user_would_type() -> None:
    stages = demo("work=somewhere", "variants=[ld]", "seeds=[7]", "arguments.train=['steps=5']")
    words = stages["train-ld-7"].shown().split()
    assert words[:4] == ["deepspeed", "--num_accelerators", "1", "--master_port"]
    assert words[5:9] == ["train.py", "experiment=sprites/ld", "run=somewhere/train/ld/seed7", "seed=7"]
    assert words[-1] == "steps=5"
    control = stages["align-random_init-7"].shown()
    assert "encoder=random_init encoder.checkpoint=somewhere/train/ld/seed7/encoder encoder.seed=7" in control
    assert "'fills=[hold,blank,mask,predict]'" in stages["retrieval-ld-7"].shown()
    assert "'fills=[hold,blank,mask]'" in stages["retrieval-raw_patches-7"].shown()


def test_launched_stages_get_ports_of_their_own() -> None:
    ports = [one.command[4] for one in demo("seeds=[0,1,2]").values() if "--master_port" in one.command]
    assert len(ports) == len(set(ports)) == 2 * 3 + 2 * 3 + 3 + 1


def test_program_returns_an_error_code_and_the_log_when_a_stage_fails(tmp_path: Path) -> None:
    command = [sys.executable, "eval/pipeline.py", f"work={tmp_path}", "arguments.data=['no_such_key=1']"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "stage data ended with code 2" in result.stderr
    assert "no_such_key" in result.stderr
