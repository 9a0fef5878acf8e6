"""The HTML page: one file, no network, no script."""

from __future__ import annotations

import html
import itertools
import json
from collections.abc import Mapping, Sequence
from typing import Any

from mmjepa.evaluation.report.findings import Finding
from mmjepa.evaluation.report.glossary import GLOSSARY
from mmjepa.evaluation.report.plots import Palette, theme_css
from mmjepa.evaluation.report.runs import Run
from mmjepa.evaluation.report.sections import Section
from mmjepa.evaluation.report.style import STYLE_SHEET
from mmjepa.evaluation.report.tables import Table, to_html


def page(
    title: str,
    subtitle: str,
    findings: Sequence[Finding],
    summary: Table,
    sections: Sequence[Section],
    missing: Sequence[str],
    palette: Palette,
) -> str:
    """The whole document; ``missing``: what the results hold nothing on."""
    parts = [section_html(section) for section in sections]
    if missing:
        parts.append(f'<p class="soft">Nothing was given for: {html.escape(", ".join(missing))}.</p>')
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<style>{STYLE_SHEET}\n{theme_css(palette)}</style></head>\n<body><main>\n"
        f'<h1>{html.escape(title)}</h1><p class="soft">{html.escape(subtitle)}</p>\n'
        f"{_headline_html(findings)}\n{to_html(summary)}\n" + "\n".join(parts) + "\n</main></body></html>\n"
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
    trained = [_details(f"run {run.name}", json.dumps(run.meta, indent=1), run.config) for run in runs]
    measured = [_details(f"evaluation {name}", json.dumps(meta, indent=1)) for name, meta in metas.items()]
    for heading, blocks in (("Training runs", trained), ("Evaluations", measured)):
        if blocks:
            summary = f"<summary>{heading} ({len(blocks)})</summary>"
            parts.append(f"<details>{summary}{''.join(blocks)}</details>")
    return Section("reproduce", "Reproduce", "".join(parts))


def _details(summary: str, *texts: str) -> str:
    blocks = "".join(f"<pre>{html.escape(text)}</pre>" for text in texts if text)
    return f"<details><summary>{html.escape(summary)}</summary>{blocks}</details>"


def _headline_html(findings: Sequence[Finding]) -> str:
    known = [one.good for one in findings if one.good is not None]
    kind = "" if not known else (" good" if all(known) else " bad" if not any(known) else "")
    parts = []
    for topic, group in itertools.groupby(findings, lambda one: one.topic):
        sentences = [html.escape(one.sentence) for one in group]
        if not topic:
            parts += [f"<p>{sentence}</p>" for sentence in sentences]
        elif len(sentences) == 1:
            parts.append(f"<p><strong>{html.escape(topic)}:</strong> {sentences[0]}</p>")
        else:
            items = "".join(f"<li>{sentence}</li>" for sentence in sentences)
            parts.append(f"<p><strong>{html.escape(topic)}</strong></p><ul>{items}</ul>")
    return f'<div class="headline{kind}">{"".join(parts)}</div>'
