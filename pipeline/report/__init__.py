"""The report: one HTML page from what the stages wrote, and the pictures of the data."""

from pipeline.report.lengths import draw_data, picture_of_data
from pipeline.report.page import scores, write_report

__all__ = ["draw_data", "picture_of_data", "scores", "write_report"]
