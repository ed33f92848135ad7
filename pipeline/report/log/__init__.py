"""The experiment log: all that a run did and found, in Markdown for a lab notebook."""

from pipeline.report.log.write import log_text, write_log

__all__ = ["log_text", "write_log"]
