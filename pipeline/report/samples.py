"""A few answers side by side: what training mended, what it broke, what it left."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.chat import ChatFormat, chat_format, parse_reply
from pipeline.report.gather import answers_of, rows_of
from pipeline.report.view import RunView

LONGEST = 4000
"""Characters of a text that are shown, so that a page opens at once."""
_WANTED = {
    "mended": 2,
    "broken": 1,
    "both wrong": 1,
    "both right": 1,
    "wrong": 1,
    "right": 1,
    "cut off": 1,
    "": 1,
}
_LEAST = 3
"""Filled up to, in the order of the kinds, where there are fewer kinds."""
_TITLES = {
    "mended": "base wrong, tuned right",
    "broken": "base right, tuned wrong",
    "both wrong": "both wrong",
    "both right": "both right",
    "cut off": "cut off",
    "right": "tuned right",
    "wrong": "tuned wrong",
    "": "not graded",
}


@dataclass
class Said:
    """One text, and every engine that said it."""

    engines: list[str]
    thinking: str
    answer: str
    left_out: int
    """Characters that are not shown."""
    right: bool | None
    stopped: bool
    tokens: int | None


@dataclass
class Sample:
    task: str
    id: str
    title: str
    question: str = ""
    reference: str = ""
    said: list[Said] = field(default_factory=list)


def samples(view: RunView) -> list[Sample]:
    """Questions of each task: some of each kind, the first of each; one answer an engine."""
    return [sample for task in view.tasks for sample in _of_task(view, task)]


def _of_task(view: RunView, task: str) -> list[Sample]:
    chosen = {sample.id: sample for sample in _choose(view, task)}
    if not chosen:
        return []
    for row in rows_of(view) if task == "test" else ():
        if sample := chosen.get(row["id"]):
            sample.question = row["question"]
            sample.reference = row.get("reference") or row.get("answer") or ""
    format = chat_format(view.recipe.get("chat", {}).get("format", "llama3.2-reasoning"))
    found: dict[str, dict[str, Mapping[str, Any]]] = defaultdict(dict)
    for answer in _first_samples(view, task):
        if answer["id"] in chosen:
            found[answer["id"]][answer["engine"]] = answer
            _take_question(chosen[answer["id"]], answer)
    for id, by_engine in found.items():
        order = [name for name in view.engines if name in by_engine]
        chosen[id].said = _together([by_engine[name] for name in order], format)
    return list(chosen.values())


def _take_question(sample: Sample, answer: Mapping[str, Any]) -> None:
    """Another task's rows are not in the run; its answers say what was asked."""
    sample.question = sample.question or str(answer.get("question") or "")[:LONGEST]
    sample.reference = sample.reference or str(answer.get("reference") or "")[:LONGEST]


def _first_samples(view: RunView, task: str) -> Iterator[dict[str, Any]]:
    return (each for each in answers_of(view, task) if each.get("sample", 0) == 0)


def _choose(view: RunView, task: str) -> list[Sample]:
    """The first questions of each kind, in the order of _WANTED."""
    if view.tuned is None:
        return []
    graded: dict[str, dict[str, Any]] = defaultdict(dict)
    for answer in _first_samples(view, task):
        if answer["engine"] in ("base", view.tuned):
            is_base = answer["engine"] == "base"
            graded[answer["id"]]["base" if is_base else "tuned"] = _is_right(answer)
            if not is_base:
                graded[answer["id"]]["cut"] = not answer.get("stopped", True)
    kinds: dict[str, list[str]] = defaultdict(list)
    for id, each in graded.items():
        kinds[_kind(each)].append(id)
    counts = {kind: min(count, len(kinds[kind])) for kind, count in _WANTED.items()}
    for kind in _WANTED:
        counts[kind] += max(0, min(_LEAST - sum(counts.values()), len(kinds[kind]) - counts[kind]))
    return [
        Sample(task, id, _TITLES[kind]) for kind in _WANTED for id in kinds[kind][: counts[kind]]
    ]


def _is_right(answer: Mapping[str, Any]) -> bool | None:
    """A hit, where the hit rate was asked for, else an exact match; None where not graded."""
    found = answer.get("metrics", {})
    graded = found.get("hit_rate", found.get("exact_match"))
    return None if graded is None else graded >= 0.5


def _kind(each: Mapping[str, Any]) -> str:
    tuned, base = each.get("tuned"), each.get("base")
    if each.get("cut") and not tuned:
        return "cut off"
    if tuned is None:
        return ""
    if base is None:
        return "right" if tuned else "wrong"
    if base == tuned:
        return "both right" if tuned else "both wrong"
    return "mended" if tuned else "broken"


def _together(answers: Iterable[Mapping[str, Any]], format: ChatFormat) -> list[Said]:
    """Engines that said the same, in one; in the order given."""
    by_text: dict[tuple[str, bool | None, bool], Said] = {}
    for answer in answers:
        stopped, right = bool(answer.get("stopped", True)), _is_right(answer)
        key = (answer["text"], right, stopped)
        if key in by_text:
            by_text[key].engines.append(answer["engine"])
            continue
        reply = parse_reply(answer["text"], format)
        left_out = sum(max(0, len(text) - LONGEST) for text in (reply.thinking, reply.answer))
        by_text[key] = Said(
            engines=[answer["engine"]],
            thinking=reply.thinking[:LONGEST],
            answer=reply.answer[:LONGEST],
            left_out=left_out,
            right=right,
            stopped=stopped,
            tokens=answer.get("tokens"),
        )
    return list(by_text.values())
