"""Shipped rows in columns that somebody else chose."""

import json
from collections.abc import Iterator, Mapping

from pipeline.assets import asset


def own_rows(columns: Mapping[str, str], count: int = 60) -> Iterator[dict[str, str]]:
    """The first rows of the demo, as a file with these columns would hold them."""
    with asset("data/samples/train.jsonl").open(encoding="utf-8") as lines:
        for _, line in zip(range(count), lines, strict=False):
            story = json.loads(line)
            reply = story["reannotated_assistant_content"]
            reasoning, answer = reply.removeprefix("<think>").split("</think>")
            told = {"question": story["problem"], "reply": reply, "reasoning": reasoning}
            told |= {"answer": answer, "reference": story["solution"]}
            yield {column: told[key] for key, column in columns.items()}
