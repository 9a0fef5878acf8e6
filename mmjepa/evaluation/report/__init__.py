"""The report: result rows in, one self-contained HTML page with CSV, JSON and PNG beside it out."""

from mmjepa.evaluation.report.build import Report, ReportConfig, build_report

__all__ = ["Report", "ReportConfig", "build_report"]
