"""The report: one HTML page from what the stages wrote."""

from pipeline.report.page import scores, write_report

__all__ = ["scores", "write_report"]
