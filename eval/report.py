"""Write the report of an experiment: one HTML page from result rows and training runs.

python eval/report.py results=runs/demo/results runs=runs/demo/train out=runs/demo/report
"""

from __future__ import annotations

from mmjepa.config import run_program
from mmjepa.evaluation.report import ReportConfig, build_report


def main(config: ReportConfig) -> None:
    """Write report.html with CSV, JSON and PNG beside it, and print the table at a glance."""
    report = build_report(config)
    print(report.text())
    print(f"\nreport: {report.page}")


if __name__ == "__main__":
    run_program("report", ReportConfig, main)
