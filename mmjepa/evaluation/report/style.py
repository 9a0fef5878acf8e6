"""How the report looks: names, colours and line styles of encoders, number formats, and the page's style sheet."""

from __future__ import annotations

from mmjepa.evaluation.report.rows import CONTROL_ENCODERS, Estimate, table_order

INK = "#1b1f24"
GRID = "#d0d7de"
GOOD = "#1a7f37"
BAD = "#b35900"
SOFT = "#57606a"

# Okabe and Ito's colour-blind-safe set, as (light page, dark page). Controls are grey: they are the background.
TRAINED_COLOURS = (
    ("#0072b2", "#56b4e9"),
    ("#d55e00", "#ff9455"),
    ("#009e73", "#3fd0a4"),
    ("#cc79a7", "#e6a3c8"),
    ("#8a6d00", "#f0e442"),
)
MANY_COLOUR = ("#a9b2bc", "#56606b")
"""Of all trained encoders but the baseline, where they are more than the set can tell apart."""
CONTROL_COLOURS = {
    "random_init": ("#6e7781", "#9aa4af"),
    "raw_patches": ("#8c959f", "#7d8794"),
    "majority": ("#8c959f", "#7d8794"),
}
LINE_STYLES = {"random_init": "--", "raw_patches": ":", "majority": ":"}

NAMES = {
    "baseline": "baseline",
    "random_init": "random init",
    "raw_patches": "raw patches",
    "majority": "majority class",
    "text_to_video": "text to video",
    "video_to_text": "video to text",
    "none": "whole clip",
    "single_frame": "single frame",
    "shuffled_frames": "shuffled frames",
    "knn": "kNN",
    "kinematic_0_1": "kinematic 0.1",
}
WORDS = {one: one.upper() for one in ("fwm", "hw", "ld", "ltc", "ac", "fac", "amg", "ema")} | {"sigreg": "SIGReg"}
"""How the parts of a variant's name are written, where not as they stand."""
FILL_MEANINGS = {
    "none": "nothing lost",
    "hold": "last frame received is repeated",
    "blank": "frames of the mean colour",
    "interpolate": "blend of the neighbours",
    "compact": "what is left, re-timed",
    "mask": "missing tubelets leave the token sequence",
    "predict": "the JEPA predictor fills the gap",
    "dynamics": "latent dynamics rolled over the gap",
}


def title_of(name: str) -> str:
    """The name a reader sees: ``fwm_hw_ld`` becomes FWM-HW-LD, ``ld_causal`` LD-causal."""
    return NAMES.get(name, "-".join(WORDS.get(part, part) for part in name.split("_")))


def colours(encoders: list[str]) -> dict[str, tuple[str, str]]:
    """(light, dark) colour of each encoder; trained encoders take the set in table order, as far as it reaches."""
    trained = [name for name in sorted(encoders, key=table_order) if name not in CONTROL_ENCODERS]
    if len(trained) <= len(TRAINED_COLOURS):
        chosen = dict(zip(trained, TRAINED_COLOURS, strict=False))
    else:
        chosen = {name: TRAINED_COLOURS[0] if name == "baseline" else MANY_COLOUR for name in trained}
    return chosen | {name: CONTROL_COLOURS[name] for name in encoders if name in CONTROL_COLOURS}


def percent(estimate: Estimate) -> str:
    """``12.3 [10.1, 14.6]``, in percent."""
    return f"{100 * estimate.value:.1f} [{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]".replace("-", "−")


def points(difference: Estimate) -> str:
    """``+4.2 [1.0, 7.4]``: a difference of shares in points."""
    numbers = (f"{100 * one:+.1f}" for one in (difference.value, difference.low, difference.high))
    return "{} [{}, {}]".format(*numbers).replace("-", "−")


def plain(estimate: Estimate) -> str:
    """``3.5 [3.0, 4.1]``: ranks and other numbers that are no shares."""
    return f"{estimate.value:.1f} [{estimate.low:.1f}, {estimate.high:.1f}]"


STYLE_SHEET = """
:root {
  color-scheme: light dark;
  --ink: #1b1f24; --soft: #57606a; --paper: #ffffff; --panel: #f6f8fa; --line: #d0d7de;
  --good: #1a7f37; --bad: #b35900; --mark: #fff8c5;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ink: #e6edf3; --soft: #9aa4af; --paper: #0d1117; --panel: #161b22; --line: #30363d;
    --good: #4ac26b; --bad: #e3953b; --mark: #3a3000;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif;
}
main { max-width: 84rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .25rem; }
h2 { font-size: 1.25rem; margin: 2.5rem 0 .25rem; padding-top: .75rem; border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.25rem 0 .4rem; }
p, ul { max-width: 46rem; margin: .4rem 0; }
.soft, figcaption, caption { color: var(--soft); font-size: .875rem; }
.headline { background: var(--panel); border-left: 4px solid var(--line); padding: .75rem 1rem; margin: 1rem 0; }
.headline p { margin: .35rem 0; max-width: none; }
.headline ul { margin: .2rem 0 .5rem; padding-left: 1.25rem; max-width: none; }
.headline.good { border-color: var(--good); }
.headline.bad { border-color: var(--bad); }
.scroll { overflow-x: auto; margin: .75rem 0; }
.tables { display: flex; flex-wrap: wrap; gap: 0 2.5rem; }
.tables .scroll { min-width: 0; }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; caption-side: top; padding-bottom: .25rem; }
caption span { display: block; max-width: min(60rem, 90vw); }
th, td { padding: .3rem .4rem .3rem .6rem; text-align: right; border-bottom: 1px solid var(--line); }
td { white-space: nowrap; }
td.words { white-space: normal; min-width: 8rem; }
td.words, th.words { text-align: left; }
.grouped td .range { display: block; line-height: 1.1; }
td.marked { font-weight: 700; }
td:first-child { white-space: normal; min-width: 7rem; }
td, th { vertical-align: top; }
th.group { text-align: center; max-width: none; border-bottom: 0; padding-bottom: 0; }
th { font-weight: 600; vertical-align: bottom; min-width: 4.5rem; max-width: 9rem; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
td .range { color: var(--soft); font-size: .8em; }
td.best { background: var(--mark); }
tr.control td { color: var(--soft); }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(15.5rem, 1fr)); gap: 1rem 1.25rem; }
.charts { margin: .5rem 0 1rem; }
figure { margin: 0; }
figure svg { width: 100%; height: auto; display: block; max-width: 26rem; }
.key { display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; font-size: .875rem; padding: 0; list-style: none; }
.key svg { width: 2rem; height: .8rem; vertical-align: middle; margin-right: .35rem; }
.query { margin: 1.5rem 0 2.5rem; }
.query q { font-size: 1.05rem; font-weight: 600; }
.strips { display: grid; grid-template-columns: repeat(auto-fill, minmax(19rem, 1fr)); gap: .75rem 1.25rem; }
.strip { min-width: 0; }
.strip img { width: 100%; height: auto; display: block; border: 2px solid transparent; border-radius: 3px; }
.strip.right img { border-color: var(--good); }
.strip .mark { font-weight: 700; }
.strip.right .mark { color: var(--good); }
.strip.wrong .mark { color: var(--bad); }
dl { display: grid; grid-template-columns: minmax(8rem, max-content) 1fr; gap: .3rem 1rem; font-size: .9rem; }
dt { font-weight: 600; }
dd { margin: 0; }
pre {
  background: var(--panel); padding: .6rem .8rem; border-radius: 4px; font-size: .8rem;
  white-space: pre-wrap; overflow-wrap: anywhere;
}
details { margin: .4rem 0; }
summary { cursor: pointer; }
@media (max-width: 36rem) {
  main { padding: 1rem .85rem 3rem; }
  dl { grid-template-columns: 1fr; }
  dd { margin-bottom: .4rem; }
}
"""
