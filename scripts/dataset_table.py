"""Write the table of known datasets, made from the registry, into the files that show it."""

import re
from pathlib import Path

from pipeline.data.read.registry import markdown_table

BEGIN, END = "<!-- datasets: scripts/dataset_table.py -->", "<!-- /datasets -->"
ROOT = Path(__file__).parents[1]
COLUMNS = {ROOT / "README.md": False, ROOT / "docs" / "datasets.md": True}
"""File -> whether its table says which column holds what."""


def with_table(text: str, *, columns: bool) -> str:
    """The text with what stands between its markers made anew; without markers the text itself."""
    between = re.compile(f"(?<={re.escape(BEGIN)}\n).*?(?={re.escape(END)})", re.DOTALL)
    return between.sub(lambda _: f"{markdown_table(columns=columns)}\n", text)


if __name__ == "__main__":
    for path, columns in COLUMNS.items():
        text = with_table(path.read_text(encoding="utf-8"), columns=columns)
        path.write_text(text, encoding="utf-8")
