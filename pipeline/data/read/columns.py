"""Settle which column of a source's records holds what: as said, as known, or as found."""

from collections import Counter
from dataclasses import dataclass
from typing import Literal

from pipeline.data.read.detect import Head, chat_columns, detect, good_rows, names_of
from pipeline.data.read.registry import Entry, flow, lookup, registered
from pipeline.data.read.rows import Reject, clip, required, to_row
from pipeline.data.read.sources import is_local
from pipeline.errors import PipeError
from pipeline.recipe import Columns, Source

Origin = Literal["recipe", "registry", "known columns", "detected"]

_R1_DISTILL = "ServiceNow-AI/R1-Distill-SFT"
_OWN = Columns(
    question="question",
    reasoning="reasoning",
    answer="answer",
    system="system",
    reference="reference",
    id="id",
    source="source",
)
"""What prepare itself writes."""

_RECIPE = "data.sources.N.columns of the recipe"


@dataclass(frozen=True)
class Settled:
    """The columns of a source, and how they were come by."""

    columns: Columns
    origin: Origin
    entry: Entry | None
    """The registry's, for licence and duties, whoever named the columns."""
    good: int
    """How many of the head's records became rows."""

    def shown(self) -> str:
        """The columns as a recipe may have them."""
        return flow(self.columns)


def settle_columns(source: Source, head: Head, *, accept: bool) -> Settled:
    """The recipe's columns, else the registry's, else known ones, else those found in `head`.

    Raises PipeError where a column is in no record of the head, where nothing is found, and,
    without `accept`, where columns were found but nobody confirmed them.
    """
    entry = None if is_local(source.dataset) else registered(source)
    if source.columns is not None:
        return _checked(source, head, source.columns, "recipe", entry)
    if entry is not None:
        return _checked(source, head, entry.columns, "registry", entry)
    if (known := _known(head)) is not None:
        return _checked(source, head, known, "known columns", None)
    found = _found(source, head)
    if not accept:
        raise PipeError(
            f"The columns of {source.dataset} are not known. {_told(found, head)}",
            f"Take that: pipe prepare --yes. Or write it, corrected, as {_RECIPE}.",
        )
    return _checked(source, head, found, "detected", None)


def _known(head: Head) -> Columns | None:
    """Columns that only R1-Distill-SFT has, or prepare's own."""
    there = set(names_of(head))
    # v1 may have the columns of v0 too, empty
    for config in ("v1", "v0"):
        entry = lookup(_R1_DISTILL, config)
        if entry and required(entry.columns) <= there:
            return entry.columns
    if not required(_OWN) <= there:
        return None
    direct = all(record.get("reasoning") is None for record in head)
    return _OWN.model_copy(update={"reasoning": None}) if direct else _OWN


def _checked(
    source: Source, head: Head, columns: Columns, origin: Origin, entry: Entry | None
) -> Settled:
    """Raises PipeError where one of the columns is in no record."""
    there = names_of(head)
    # who names an optional column in a recipe wants it
    wanted = _all_named(columns) if origin == "recipe" else required(columns)
    if missing := sorted(wanted - set(there)):
        raise PipeError(
            f"{source.dataset} has no column {', '.join(missing)}. "
            f"Expected {_by(origin, entry)}: {', '.join(sorted(wanted))}. {_listed(there)}",
            _next_step(head, origin),
        )
    correct = source.filters.correct if source.filters else True
    return Settled(columns, origin, entry, good_rows(columns, head, correct=correct))


def _all_named(columns: Columns) -> frozenset[str]:
    extras = (columns.id, columns.source, columns.system, columns.reference, columns.input)
    return required(columns) | {path.partition(".")[0] for path in extras if path}


def _by(origin: Origin, entry: Entry | None) -> str:
    if entry is None or origin == "recipe":
        return "by the recipe"
    doubt = ", where they are not confirmed" if "columns" in entry.unconfirmed else ""
    return f"by the registry for {entry.name}{doubt}"


def _next_step(head: Head, origin: Origin) -> str:
    if not head:
        return "Check the source's config, split and content."
    if origin == "recipe":
        return f"Correct {_RECIPE}."
    found = detect(head)
    told = f" {_told(found, head)}" if found else ""
    return f"Check its config and split, or say which column holds what in {_RECIPE}.{told}"


def _found(source: Source, head: Head) -> Columns:
    if (found := detect(head)) is not None:
        return found
    if chats := chat_columns(head):
        tried = Columns(messages=chats[0], answer=chats[0])
        raise PipeError(
            f"The chats of {source.dataset} do not read as rows. {_told(tried, head)}",
            "A row is one question and one reply, with a system turn or without: "
            "make several rows of a longer chat.",
        )
    raise PipeError(
        f"The columns of {source.dataset} are not known, and none look like a question and "
        f"its reply. {_listed(names_of(head))}",
        f"Say which column holds what in {_RECIPE}; docs/datasets.md has examples.",
    )


def _listed(names: list[str]) -> str:
    return f"Found: {clip(', '.join(names)) or 'no record at all'}."


def _told(columns: Columns, head: Head) -> str:
    """How well the head reads by columns that were found, and the columns."""
    rows = [to_row(columns, record, "", "") for record in head]
    reasons = Counter(row.reason for row in rows if isinstance(row, Reject))
    rest = ", ".join(f"{reason} {count}" for reason, count in reasons.most_common())
    good = f"{len(rows) - reasons.total()} of {len(rows)} rows read well"
    return f"{good}{f' ({rest})' if rest else ''} with\ncolumns: {flow(columns)}"
