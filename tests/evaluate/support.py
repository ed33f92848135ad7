"""Engines that answer by rule, and a run whose stages before eval are done."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from pipeline.base import open_base
from pipeline.chat import Encoder, chat_format, parse_reply
from pipeline.engines.completion import Completion, Decoding
from pipeline.engines.contenders import Contender
from pipeline.evaluate.items import Item
from pipeline.evaluate.kept import Answer, Likelihood
from pipeline.evaluate.metrics import Measured
from pipeline.recipe import Recipe
from pipeline.run import Manifest, Run

FORMAT = chat_format("llama3.2-reasoning")


def row(number: int) -> dict[str, str | None]:
    return {
        "id": f"r{number}",
        "source": "sums",
        "system": None,
        "question": f"What is {number} + 1?",
        "reasoning": f"{number} + 1 = {number + 1}",
        "answer": f"It is {number + 1}.",
        "reference": str(number + 1),
    }


def reply(item: Item, text: str, *, stopped: bool = True, tokens: int = 7) -> Answer:
    parts = parse_reply(text, FORMAT)
    return Answer(text, parts.thinking, parts.answer, parts.well_formed, stopped, tokens, 0.5)


def measured(
    item: Item, text: str, *, stopped: bool = True, likelihood: tuple[float, int] | None = None
) -> Measured:
    known = Likelihood(*likelihood) if likelihood else None
    return Measured(item, reply(item, text, stopped=stopped), 0, known)


class Rule:
    """Right about every question but each `wrong`-th; says the seed it was given when it draws."""

    def __init__(
        self, name: str, log: list[tuple[str, int]], wrong: int, fails: int | None
    ) -> None:
        self.name, self._log, self._wrong, self._fails = name, log, wrong, fails

    def answers(
        self, conversations: Sequence[object], decoding: Decoding, *, thinking: bool = True
    ) -> Iterator[Completion]:
        for place, conversation in enumerate(conversations):
            if self._fails is not None and len(self._log) >= self._fails:
                raise KeyboardInterrupt
            question = conversation[-1]["content"]
            number = int(question.split()[2])
            self._log.append((question, len(conversations)))
            said = 0 if self._wrong and number % self._wrong == 0 else number + 1
            drawn = f" ({decoding.seed + place})" if decoding.temperature else ""
            text = f"<think>\nhm{drawn}\n</think>\n\nIt is {said}."
            yield Completion(text, parse_reply(text, FORMAT), 9, True)

    def score(self, sequences: Sequence[object], keep: Path | None = None) -> list[object]:
        return [np.full(len(s.ids) - s.target_start, -0.5, np.float32) for s in sequences]

    def memory_bytes(self) -> int | None:
        return 1000

    def close(self) -> None:
        self._log.append(("closed", 0))


def rules(log: list[tuple[str, int]], fails: int | None = None) -> list[Contender]:
    return [
        Contender("base", lambda: Rule("base", log, 1, fails), True),
        Contender("adapter", lambda: Rule("adapter", log, 4, fails), True),
        Contender("ollama", lambda: Rule("ollama", log, 4, fails), False),
    ]


def asked(log: list[tuple[str, int]]) -> list[str]:
    """The questions of the log, those that were asked alone for their first token left out."""
    return [question for question, together in log if together > 1]


def run_before_eval(root: Path, facts: Mapping[str, object] | None = None, rows: int = 10) -> Run:
    run = Run(root)
    with run.publish("data") as draft:
        lines = [json.dumps(row(number)) + "\n" for number in range(rows)]
        (draft.folder / "test.jsonl").write_text("".join(lines))
        draft.manifest = Manifest(stage="data", section={}, inputs={})
    with run.publish("train") as draft:
        entries = run.input_entry("data")
        draft.manifest = Manifest(stage="train", section={}, inputs=entries, facts=facts or {})
    with run.publish("export") as draft:
        entries = run.input_entry("train")
        draft.manifest = Manifest("export", {}, entries, facts={"files": {}})
    return run


def tokens_of_replies(recipe: Recipe, rows: int) -> int:
    """Reply tokens of the rows' own replies, the end of turn included."""
    encoder = Encoder(open_base(recipe.model).folder / "tokenizer.json", FORMAT)
    total = 0
    for number in range(rows):
        each = row(number)
        encoded = encoder.example(each["question"], each["reasoning"], each["answer"])
        total += len(encoded.ids) - encoded.target_start
    return total
