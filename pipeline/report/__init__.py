"""The report: one HTML page from what the stages wrote, of one run or of two compared."""

from pipeline.report.lengths import draw_data, picture_of_data
from pipeline.report.page import write_report
from pipeline.report.versus import write_versus
from pipeline.report.view import Gap

__all__ = ["Gap", "draw_data", "picture_of_data", "write_report", "write_versus"]
