"""Charts of the report: one small chart per condition or term, drawn once and saved as inline SVG and as PNG.

The SVG carries its colours as CSS variables, so that one drawing serves light and dark pages.
"""

from __future__ import annotations

import html
import io
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mmjepa.evaluation.report.rows import Estimate
from mmjepa.evaluation.report.style import BAD, GOOD, GRID, INK, LINE_STYLES, MANY_COLOUR, SOFT, title_of

RC: Any = {  # matplotlib types its keys as a closed set of literals
    "svg.fonttype": "none",
    "svg.hashsalt": "mmjepa",
    "font.size": 9,
    "font.family": "sans-serif",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": GRID,
    "axes.grid": True,
    "axes.axisbelow": True,
    "lines.linewidth": 1.8,
}
CHART_INCHES = (3.1, 2.4)


@dataclass(frozen=True)
class Line:
    """One encoder's line: x positions and an estimate at each (value, low, high in the units of the y axis)."""

    encoder: str
    x: Sequence[float]
    y: Sequence[Estimate]


@dataclass(frozen=True)
class Chart:
    """A titled chart and the function that draws it on given axes."""

    title: str
    caption: str
    draw: Callable[[Axes], None]
    inches: tuple[float, float] = CHART_INCHES


Palette = Mapping[str, tuple[str, str]]


def line_chart(
    title: str,
    caption: str,
    lines: Sequence[Line],
    palette: Palette,
    x_label: str,
    y_label: str,
    y_limits: tuple[float, float] | None = None,
) -> Chart:
    """Lines with interval bands, each named at its right end; ``y_limits`` None: as the lines need."""

    def draw(axes: Axes) -> None:
        for line in lines:
            colour = palette[line.encoder][0]
            axes.plot(line.x, [one.value for one in line.y], color=colour, linestyle=LINE_STYLES.get(line.encoder, "-"))
            low, high = [one.low for one in line.y], [one.high for one in line.y]
            if low != high:
                axes.fill_between(line.x, low, high, color=colour, alpha=0.15, linewidth=0)
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        if y_limits is not None:
            axes.set_ylim(y_limits)
        _name_ends(axes, lines, palette)

    return Chart(title, caption, draw)


def shared_limits(groups: Iterable[Sequence[Line]]) -> tuple[float, float]:
    """(0, a little above the highest bound): charts that are read side by side need one scale."""
    highest = max((one.high for lines in groups for line in lines for one in line.y), default=1.0)
    return 0.0, 1.05 * max(highest, 1.0)


def forest_chart(
    title: str, caption: str, estimates: Mapping[str, Estimate], palette: Palette, x_label: str, chance: float | None
) -> Chart:
    """One row per encoder: a point and its interval; ``chance`` is a vertical line."""

    def draw(axes: Axes) -> None:
        names = list(estimates)
        for row, name in enumerate(names):
            one = estimates[name]
            axes.plot([one.low, one.high], [row, row], color=palette[name][0])
            axes.plot([one.value], [row], "o", color=palette[name][0], markersize=5)
        axes.set_yticks(range(len(names)), [title_of(name) for name in names])
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.grid(axis="y", visible=False)
        if chance is not None:  # its name stands above the first row, within the axes: the title is outside
            axes.set_ylim(top=-1.0)
            axes.axvline(chance, color=INK, linewidth=0.8, linestyle=":")
            axes.text(chance, -0.95, " majority class", fontsize=8, va="top", ha="left")
        axes.set_xlim(left=0)
        axes.set_xlabel(x_label)

    return Chart(title, caption, draw, _row_inches(len(estimates)))


def difference_chart(
    title: str, caption: str, differences: Mapping[str, tuple[Estimate, bool]], untrained: float | None
) -> Chart:
    """One row per name: a difference in points with its interval, filled and starred where it is significant.

    ``untrained``: the same difference of the untrained network, a dotted line.
    """

    def draw(axes: Axes) -> None:
        for row, (one, marked) in enumerate(differences.values()):
            colour = SOFT if not marked else GOOD if one.value > 0 else BAD
            axes.plot([100 * one.low, 100 * one.high], [row, row], color=colour, linewidth=2.4 if marked else 1.4)
            face = colour if marked else "none"
            axes.plot([100 * one.value], [row], "o", color=colour, markersize=6, markerfacecolor=face)
        names = [f"{name} *" if marked else name for name, (_, marked) in differences.items()]
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.grid(axis="y", visible=False)
        axes.axvline(0, color=INK, linewidth=1.0)
        if untrained is not None:
            axes.axvline(100 * untrained, color=INK, linewidth=1.0, linestyle=":")
        axes.set_xlabel("points of top-1 − baseline")

    return Chart(title, caption, draw, _row_inches(len(differences)))


def _row_inches(rows: int) -> tuple[float, float]:
    """Size of a chart with one row per encoder."""
    return CHART_INCHES[0] + 0.3, max(CHART_INCHES[1], 0.8 + 0.2 * rows)


def inline_svg(chart: Chart, palette: Palette) -> str:
    """The chart as an SVG element for a page; colours are the CSS variables of :func:`theme_css`."""
    with plt.rc_context(RC):
        figure = plt.figure(figsize=chart.inches, layout="constrained")
        chart.draw(figure.add_subplot())
        text = _svg_text(figure)
    variables = {INK: "var(--ink)", GRID: "var(--line)", SOFT: "var(--soft)", GOOD: "var(--good)", BAD: "var(--bad)"}
    variables |= {light: f"var(--series-{name})" for name, (light, _) in palette.items()}
    for colour, variable in variables.items():
        text = text.replace(colour, variable)
    return text.replace("<svg ", f'<svg role="img" aria-label="{html.escape(chart.title, quote=True)}" ', 1)


def theme_css(palette: Palette) -> str:
    """CSS that gives every encoder's colour variable its light and its dark value."""
    light = " ".join(f"--series-{name}:{pair[0]};" for name, pair in palette.items())
    dark = " ".join(f"--series-{name}:{pair[1]};" for name, pair in palette.items())
    return f":root {{ {light} }}\n@media (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}"


def save_png(charts: Sequence[Chart], path: Path, columns: int = 3) -> None:
    """All charts as one picture, ``columns`` side by side, for slides and README files."""
    columns = min(columns, len(charts))
    rows = -(-len(charts) // columns)
    width, height = (max(chart.inches[side] for chart in charts) for side in (0, 1))
    with plt.rc_context(RC):
        figure = plt.figure(figsize=(width * columns, height * rows), layout="constrained")
        for index, chart in enumerate(charts):
            axes = figure.add_subplot(rows, columns, index + 1)
            chart.draw(axes)
            axes.set_title(chart.title, fontsize=10, loc="left")
        figure.savefig(path, dpi=130, facecolor="white")
        plt.close(figure)


def _name_ends(axes: Axes, lines: Sequence[Line], palette: Palette) -> None:
    """Write each encoder's name once, at its last point, moved apart so that no two names overlap."""
    bottom, top = axes.get_ylim()
    gap = (top - bottom) * 0.085
    ends = {line.encoder: (line.x[-1], line.y[-1].value) for line in lines}
    names = sorted(ends, key=lambda name: ends[name][1])
    # Of many lines in one grey only the outermost are named.
    outermost = (names[0], names[-1]) if names else ()
    names = [name for name in names if palette[name] != MANY_COLOUR or name in outermost]
    heights: list[float] = []
    for name in names:
        heights.append(max(ends[name][1], heights[-1] + gap) if heights else ends[name][1])
    beyond = max(0.0, heights[-1] - top) if heights else 0.0
    for name, height in zip(names, heights, strict=True):
        axes.annotate(
            title_of(name),
            (ends[name][0], height - beyond),
            xytext=(4, 0),
            textcoords="offset points",
            color=palette[name][0],
            fontsize=8,
            va="center",
            annotation_clip=False,
        )


def _svg_text(figure: Figure) -> str:
    buffer = io.StringIO()
    figure.savefig(
        buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None, "Format": None, "Type": None}
    )
    plt.close(figure)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    return re.sub(r'(<svg[^>]*?) width="[^"]*" height="[^"]*"', r"\1", _without_metadata(text), count=1)


def _without_metadata(text: str) -> str:
    return re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
