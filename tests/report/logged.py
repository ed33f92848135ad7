"""Reads a log as a Markdown parser does."""

from markdown_it import MarkdownIt

from pipeline.report.log import log_text
from pipeline.run import Run

MARKDOWN = MarkdownIt("commonmark", {"html": True}).enable("table")


def text_of(run: Run) -> str:
    return log_text(run)[0]


def section(text: str, title: str) -> str:
    """What stands under a heading of the second level."""
    return text.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def rows(text: str) -> dict[str, list[str]]:
    """First cell -> the other cells, of every table as a Markdown parser sees it."""
    found: dict[str, list[str]] = {}
    cells: list[str] = []
    inside = False
    for token in MARKDOWN.parse(text):
        if token.type == "tr_open":
            cells = []
        elif token.type in ("td_open", "th_open"):
            inside = True
        elif token.type == "inline" and inside:
            cells.append("".join(part.content for part in token.children or ()))
            inside = False
        elif token.type == "tr_close" and cells:
            found[cells[0]] = cells[1:]
    return found
