"""The report: one HTML page from what the stages wrote."""

from pipeline.report.page import write_report

__all__ = ["write_report"]
