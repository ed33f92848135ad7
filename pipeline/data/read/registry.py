"""The datasets that are known by id: their columns, form, size, licence and duties."""

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field

from pipeline.errors import PipeError
from pipeline.recipe import Columns, Source

_FILE = Path(__file__).with_name("registry.yaml")

Form = Literal["inline", "chat", "thought", "separate", "wrapped", "candidates", "direct"]
Duty = Literal["non-commercial", "share-alike"]
Doubt = Literal["columns", "rows", "values", "licence", "teacher"]

FORMS: dict[Form, str] = {
    "inline": "one text with `<think>`",
    "chat": "chat with `<think>`",
    "thought": "chat with thought and solution tags",
    "separate": "reasoning and answer apart",
    "wrapped": "chat with `<think>` and `<answer>`",
    "candidates": "several replies with flags",
    "direct": "no reasoning",
}
"""The forms that reasoning comes in, in words."""

MARK = "[?]"
"""Stands beside what nobody has confirmed."""


@dataclass(frozen=True)
class Entry:
    """One config of a known dataset."""

    id: str
    aliases: tuple[str, ...]
    config: str | None
    """None where the dataset has only one."""
    is_default: bool
    """Taken where the recipe names no config."""
    split: str
    columns: Columns
    form: Form
    rows: int | None
    about: bool
    """Whether `rows` is a round figure."""
    licence: str
    duties: tuple[Duty, ...]
    """What a model trained on it must carry on."""
    teacher: str
    note: str
    unconfirmed: tuple[Doubt, ...]
    """`values` are those of flags."""

    @property
    def name(self) -> str:
        return f"{self.id} {self.config}" if self.config else self.id

    @property
    def licence_text(self) -> str:
        """The licence, the duties that it puts on a model, and whether that is confirmed."""
        terms = f"{self.licence}, {' and '.join(self.duties)}" if self.duties else self.licence
        return f"{terms} {MARK}" if "licence" in self.unconfirmed else terms

    @property
    def rows_text(self) -> str:
        figure = "unknown" if self.rows is None else f"{'~' * self.about}{self.rows:,}"
        return f"{figure} {MARK}" if "rows" in self.unconfirmed else figure

    @property
    def teacher_text(self) -> str:
        return f"{self.teacher} {MARK}" if "teacher" in self.unconfirmed else self.teacher

    @property
    def columns_text(self) -> str:
        doubtful = {"columns", "values"} & set(self.unconfirmed)
        return f"`{flow(self.columns)}`" + (f" {MARK}" if doubtful else "")

    def as_json(self) -> dict[str, Any]:
        return vars(self) | {"columns": self.columns.model_dump(mode="json", exclude_defaults=True)}


class _Facts(BaseModel):
    """What a config may say otherwise than its dataset."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    split: str = "train"
    columns: Columns | None = None
    form: Form | None = None
    rows: int | None = Field(None, ge=1)
    about: bool = False
    teacher: str = ""
    note: str = ""
    unconfirmed: tuple[Doubt, ...] = ()


class _Dataset(_Facts):
    id: str
    aliases: tuple[str, ...] = ()
    licence: str
    duties: tuple[Duty, ...] = ()
    configs: dict[str, _Facts] = {}

    def entries(self) -> list[Entry]:
        """One a config, the first of them the default."""
        configs: list[tuple[str | None, _Facts]] = [*self.configs.items()] or [(None, _Facts())]
        return [self._entry(name, facts, i == 0) for i, (name, facts) in enumerate(configs)]

    def _entry(self, config: str | None, facts: _Facts, is_default: bool) -> Entry:
        said = {key: getattr(self, key) for key in _Facts.model_fields}
        said |= {key: getattr(facts, key) for key in facts.model_fields_set}
        return Entry(
            id=self.id,
            aliases=self.aliases,
            config=config,
            is_default=is_default,
            licence=self.licence,
            duties=self.duties,
            **said,
        )


@cache
def entries() -> tuple[Entry, ...]:
    """Every config of every dataset, in the file's order; of each dataset the default first."""
    datasets = yaml.safe_load(_FILE.read_text(encoding="utf-8"))["datasets"]
    found = [entry for each in datasets for entry in _Dataset.model_validate(each).entries()]
    return tuple(found)


def lookup(dataset: str, config: str | None = None, *, any_config: bool = False) -> Entry | None:
    """The entry of a dataset's config, the default's for None; None for an unknown dataset.

    Raises PipeError for an unknown config of a known dataset; with `any_config` it gets an entry
    with the dataset's licence and duties, and nothing else confirmed.
    """
    known = _by_id(dataset)
    # the hub calls a dataset's only config so
    only = [each for each in known if each.config is None and config in (None, "default")]
    named = [each for each in known if each.config == config]
    if not known or only or named:
        return next(iter(only or named), None)
    if config is None:
        return known[0]
    if any_config:
        return replace(known[0], config=config, rows=None, unconfirmed=("columns", "rows"))
    configs = ", ".join(each.config or "none" for each in known)
    raise PipeError(
        f"The registry knows no config {config} of {dataset}; it knows: {configs}.",
        "Name one of them, or give that source its `columns` in the recipe.",
    )


def registered(source: Source) -> Entry | None:
    """The entry of a recipe's source.

    A source that brings its columns may have any config. Of a split that is not the registry's
    the number of rows is not known. Raises PipeError as `lookup` does.
    """
    entry = lookup(source.dataset, source.config, any_config=source.columns is not None)
    if entry is None or source.split in (None, entry.split):
        return entry
    return replace(entry, split=source.split, rows=None)


def find(name: str) -> tuple[Entry, ...]:
    """All configs of the dataset of that id, or of that id's last part.

    Raises PipeError with the nearest name where there is none.
    """
    found = _by_id(name) or tuple(each for each in entries() if _short(each.id) == name.lower())
    if found:
        return found
    names = {_short(each.id): each.id for each in entries()}
    near = difflib.get_close_matches(_short(name), names, 1, 0.4)
    suggestion = f"Did you mean {names[near[0]]}? " if near else ""
    raise PipeError(
        f"The registry knows no dataset {name}.",
        f"{suggestion}See all: pipe datasets. One that it does not know works too: "
        "give its source `columns` in the recipe, or let `pipe prepare --yes` find them.",
    )


class _OneLine(yaml.SafeDumper):
    """Breaks no line, not even in a text that has several."""


_OneLine.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar(
        "tag:yaml.org,2002:str", text, style='"' if "\n" in text else None
    ),
)


def flow(columns: Columns) -> str:
    """Columns as YAML in one line, as a recipe may have them."""
    said = columns.model_dump(mode="json", exclude_defaults=True)
    text = yaml.dump(
        said,
        Dumper=_OneLine,
        default_flow_style=True,
        sort_keys=False,
        allow_unicode=True,
        width=10**9,
    )
    return text.strip()


def groups() -> list[list[Entry]]:
    """The entries, those of one dataset together that differ in config and rows alone."""

    def alike(entry: Entry) -> tuple[str, ...]:
        return (entry.id, entry.form, entry.columns_text, entry.teacher, entry.note)

    return [list(group) for _, group in groupby(entries(), alike)]


def markdown_table(*, columns: bool = True) -> str:
    """All datasets as a Markdown table; `[?]` marks what nobody has confirmed.

    `columns` adds which column holds what.
    """
    head = ("Dataset", "Configs", "Form", "Rows", "Licence, duties of a model", "Columns")
    cells = [head, ("---",) * len(head), *map(_cells, groups())]
    lines = cells if columns else [row[:-1] for row in cells]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _cells(group: Sequence[Entry]) -> tuple[str, ...]:
    first = group[0]
    names = " or ".join((first.id, *first.aliases))
    configs = ", ".join(_config_text(entry) for entry in group if entry.config)
    rows = " / ".join(_distinct(entry.rows_text for entry in group))
    return (names, configs, FORMS[first.form], rows, first.licence_text, first.columns_text)


def _config_text(entry: Entry) -> str:
    return f"**{entry.config}**" if entry.is_default else str(entry.config)


def _distinct(texts: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(texts))


def _by_id(dataset: str) -> tuple[Entry, ...]:
    name = dataset.lower()
    return tuple(e for e in entries() if name in {each.lower() for each in (e.id, *e.aliases)})


def _short(name: str) -> str:
    return name.rpartition("/")[2].lower()
