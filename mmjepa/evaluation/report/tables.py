"""Tables of the report: built once from the rows, then written as HTML, CSV and plain text."""

from __future__ import annotations

import csv
import html
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mmjepa.evaluation.report.rows import CONTROL_ENCODERS, Estimate, separated_best
from mmjepa.evaluation.report.style import percent, title_of

Cell = Estimate | str | None


@dataclass(frozen=True)
class Column:
    """A heading and how its estimates are written. ``higher_is_better`` None: nothing is marked as best.

    ``group``: a heading over neighbouring columns; ``words``: cells are text that may be broken into lines.
    """

    heading: str
    write: Callable[[Estimate], str] = percent
    higher_is_better: bool | None = True
    group: str = ""
    words: bool = False

    @property
    def name(self) -> str:
        """The heading as it reads alone."""
        return f"{self.group} {self.heading}".strip()


@dataclass
class Table:
    """Rows of cells under columns."""

    name: str
    caption: str
    columns: list[Column]
    rows: list[TableRow] = field(default_factory=list)

    def add(self, label: str, cells: Sequence[Cell], encoder: str = "") -> None:
        """Append a row; one cell per column."""
        if len(cells) != len(self.columns):
            raise ValueError(f"{self.name}: {len(cells)} cells for {len(self.columns)} columns")
        self.rows.append(TableRow(label, list(cells), encoder))

    def best_row(self, column: int) -> int | None:
        """Index of the row whose interval lies apart from, and better than, all others in this column."""
        if self.columns[column].higher_is_better is None:
            return None
        sign = 1.0 if self.columns[column].higher_is_better else -1.0
        estimates = {str(i): _signed(row.cells[column], sign) for i, row in enumerate(self.rows)}
        best = separated_best(estimates)
        return None if best is None else int(best)


@dataclass(frozen=True)
class TableRow:
    """``label`` is what the row is called; ``encoder`` tells controls apart."""

    label: str
    cells: list[Cell]
    encoder: str = ""


def to_html(table: Table) -> str:
    """The table in a box that scrolls sideways on narrow screens; best in bold only where intervals are apart."""
    best = [table.best_row(i) for i in range(len(table.columns))]
    grouped = ' class="grouped"' if any(column.group for column in table.columns) else ""
    body = []
    for i, row in enumerate(table.rows):
        cells = "".join(_html_cell(table.columns[j], cell, best[j] == i) for j, cell in enumerate(row.cells))
        kind = ' class="control"' if row.encoder in CONTROL_ENCODERS else ""
        body.append(f"<tr{kind}><td>{html.escape(row.label)}</td>{cells}</tr>")
    caption = f"<caption><span>{html.escape(table.caption)}</span></caption>"
    return (
        f'<div class="scroll"><table id="{table.name}"{grouped}>{caption}<thead>{_html_head(table.columns)}</thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def to_csv(table: Table, path: Path) -> None:
    """Write value, low, high and seeds of every cell, one line per cell: unrounded, for other programs."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["row", "encoder", "column", "value", "low", "high", "seeds"])
        for row in table.rows:
            for column, cell in zip(table.columns, row.cells, strict=True):
                if isinstance(cell, Estimate):
                    writer.writerow([row.label, row.encoder, column.name, cell.value, cell.low, cell.high, cell.seeds])
                else:
                    writer.writerow([row.label, row.encoder, column.name, cell or "", "", "", ""])


def to_text(table: Table) -> str:
    """The table in aligned columns, for a terminal."""
    lines = [["", *(column.name for column in table.columns)]]
    for row in table.rows:
        lines.append([row.label, *(_plain_cell(c, cell) for c, cell in zip(table.columns, row.cells, strict=True))])
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join("  ".join(_aligned(text, widths[i], i) for i, text in enumerate(line)).rstrip() for line in lines)


def to_markdown(table: Table) -> str:
    """The table for a README; best in bold only where intervals are apart."""
    best = [table.best_row(i) for i in range(len(table.columns))]
    lines = ["| | " + " | ".join(column.name for column in table.columns) + " |"]
    lines.append("|---|" + "---:|" * len(table.columns))
    for i, row in enumerate(table.rows):
        cells = [_plain_cell(column, cell) for column, cell in zip(table.columns, row.cells, strict=True)]
        marked = [f"**{cell}**" if best[j] == i else cell for j, cell in enumerate(cells)]
        lines.append(f"| {row.label} | " + " | ".join(marked) + " |")
    return "\n".join(lines)


def encoder_table(name: str, caption: str, columns: Sequence[Column], cells: Mapping[str, Sequence[Cell]]) -> Table:
    """A table with one row per encoder, in the mapping's order; encoders without any number are left out."""
    table = Table(name, caption, list(columns))
    for encoder, row in cells.items():
        if any(cell is not None for cell in row):
            table.add(title_of(encoder), row, encoder)
    return table


def _aligned(text: str, width: int, column: int) -> str:
    return text.ljust(width) if column == 0 else text.rjust(width)


def _signed(cell: Cell, sign: float) -> Estimate | None:
    if not isinstance(cell, Estimate):
        return None
    low, high = sorted((sign * cell.low, sign * cell.high))
    return Estimate(sign * cell.value, low, high, cell.seeds)


def _plain_cell(column: Column, cell: Cell) -> str:
    if isinstance(cell, Estimate):
        return column.write(cell)
    return cell or "-"


def _html_head(columns: Sequence[Column]) -> str:
    """Headings, with those of groups above them where there are any."""
    line = "".join(f"<th{_words(column)}>{html.escape(column.heading)}</th>" for column in columns)
    groups = [(name, len(list(members))) for name, members in itertools.groupby(columns, lambda one: one.group)]
    above = "".join(f'<th class="group" colspan="{span}">{html.escape(name)}</th>' for name, span in groups)
    return (f"<tr><th></th>{above}</tr>" if any(name for name, _ in groups) else "") + f"<tr><th></th>{line}</tr>"


def _words(column: Column) -> str:
    return ' class="words"' if column.words else ""


def _html_cell(column: Column, cell: Cell, best: bool) -> str:
    text = html.escape(_plain_cell(column, cell))
    marked = text.endswith(" *")  # a difference that is significant
    value, bracket, interval = text.partition(" [")
    if bracket and not column.words:
        text = f'{f"<b>{value}</b>" if best else value} <span class="range">[{interval}</span>'
    elif best:
        text = f"<b>{value}</b>"
    kind = "words" if column.words else "best" if best else "marked" if marked else ""
    return f'<td class="{kind}">{text}</td>' if kind else f"<td>{text}</td>"
