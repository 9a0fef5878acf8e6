"""The HTML page: one file, no network, no script."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from typing import Any

from mmjepa.evaluation.report.findings import Finding
from mmjepa.evaluation.report.glossary import GLOSSARY
from mmjepa.evaluation.report.plots import Palette, theme_css
from mmjepa.evaluation.report.runs import Run
from mmjepa.evaluation.report.sections import Section
from mmjepa.evaluation.report.style import LINE_STYLES, STYLE_SHEET, title_of
from mmjepa.evaluation.report.tables import Table, to_html


def page(
    title: str,
    subtitle: str,
    findings: Sequence[Finding],
    summary: Table,
    sections: Sequence[Section],
    palette: Palette,
) -> str:
    """The whole document."""
    parts = [section_html(section) for section in sections]
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<style>{STYLE_SHEET}\n{theme_css(palette)}</style></head>\n<body><main>\n"
        f'<h1>{html.escape(title)}</h1><p class="soft">{html.escape(subtitle)}</p>\n'
        f"{_headline_html(findings)}\n{_key_html(palette)}\n{to_html(summary)}\n"
        + "\n".join(parts)
        + "\n</main></body></html>\n"
    )


def section_html(section: Section) -> str:
    """A heading and its body."""
    return f'<section id="{section.anchor}"><h2>{html.escape(section.title)}</h2>{section.body}</section>'


def glossary_section() -> Section:
    """Terms in plain words."""
    entries = "".join(f"<dt>{html.escape(term)}</dt><dd>{html.escape(words)}</dd>" for term, words in GLOSSARY.items())
    return Section("glossary", "Terms", f"<dl>{entries}</dl>")


def reproducibility_section(
    runs: Sequence[Run], metas: Mapping[str, dict[str, Any]], commands: Sequence[str]
) -> Section:
    """Which code, seeds and commands made the numbers."""
    parts = []
    if commands:
        parts.append(f"<h3>Commands</h3><pre>{html.escape(chr(10).join(commands))}</pre>")
    parts += [_details(f"run {run.name}", json.dumps(run.meta, indent=1), run.config) for run in runs]
    parts += [_details(f"evaluation {name}", json.dumps(meta, indent=1)) for name, meta in metas.items()]
    return Section("reproduce", "Reproduce", "".join(parts))


def _details(summary: str, *texts: str) -> str:
    blocks = "".join(f"<pre>{html.escape(text)}</pre>" for text in texts if text)
    return f"<details><summary>{html.escape(summary)}</summary>{blocks}</details>"


def _headline_html(findings: Sequence[Finding]) -> str:
    known = [one.good for one in findings if one.good is not None]
    kind = "" if not known else (" good" if all(known) else " bad" if not any(known) else "")
    sentences = "".join(f"<p>{html.escape(one.sentence)}</p>" for one in findings)
    return f'<div class="headline{kind}">{sentences}</div>'


def _key_html(palette: Palette) -> str:
    """Colours and line styles of the encoders that are drawn as lines."""
    dashes = {"-": "", "--": ' stroke-dasharray="6 3"', ":": ' stroke-dasharray="2 3"'}
    items = []
    for name in (name for name in palette if name != "majority"):
        stroke = f'stroke="var(--series-{name})" stroke-width="3"{dashes[LINE_STYLES.get(name, "-")]}'
        line = f'<svg viewBox="0 0 32 12"><line x1="0" y1="6" x2="32" y2="6" {stroke}/></svg>'
        items.append(f"<li>{line}{html.escape(title_of(name))}</li>")
    return f'<ul class="key">{"".join(items)}</ul>'
