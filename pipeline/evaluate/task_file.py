"""A task as a small YAML file: where its rows are, which column holds what, and how to ask."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, field_validator, model_validator

from pipeline.assets import PREFIX
from pipeline.errors import PipeError
from pipeline.recipe import Source

_BUILTIN = Path(__file__).parent / "builtin"


class TaskFile(BaseModel):
    """Either a hub `dataset`, or a `file`: jsonl or parquet, relative to the YAML's folder."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dataset: str | None = None
    file: str | None = None
    config: str | None = None
    split: str | None = None
    """None takes `test`."""
    revision: str | None = None
    """A commit or branch; None takes the newest once and records which it was."""
    id: str = "id"
    question: str = "question"
    answer: str | None = None
    """The column of a reply to compare with (ROUGE, BLEU, perplexity)."""
    reasoning: str | None = None
    """The column of that reply's thinking."""
    reference: str | None = None
    """The column of the known final answer; None takes `answer`'s."""
    reference_pattern: str | None = None
    """A regular expression; its first group, in the reference column, is the reference."""
    prompt: str = "{question}"
    system: str | None = None
    """A system message for every question."""

    @model_validator(mode="after")
    def _one_place_and_a_gold(self) -> "TaskFile":
        if (self.dataset is None) == (self.file is None):
            raise ValueError("name one of `dataset` (on the hub) and `file`")
        if self.file and (self.config or self.split or self.revision):
            raise ValueError("a file has no config, split or revision")
        if not (self.answer or self.reference):
            raise ValueError("name the column of the known answer: `reference` or `answer`")
        if self.prompt.count("{question}") != 1:
            raise ValueError("`prompt` must hold {question} once")
        return self

    @field_validator("reference_pattern")
    @classmethod
    def _has_one_group(cls, pattern: str | None) -> str | None:
        try:
            groups = re.compile(pattern).groups if pattern else 1
        except re.error as error:
            raise ValueError(f"no regular expression: {error}") from None
        if groups != 1:
            raise ValueError("it must have one group, which is the reference")
        return pattern

    def source(self, folder: Path) -> Source:
        """Where the rows are; a file beside the YAML, which lies in `folder`."""
        if self.file is None:
            return Source(
                dataset=str(self.dataset),
                config=self.config,
                split=self.split or "test",
                revision=self.revision,
            )
        path = Path(self.file).expanduser()
        return Source(dataset=self.file if self.file.startswith(PREFIX) else str(folder / path))

    def row(self, record: Mapping[str, Any], where: str) -> dict[str, Any]:
        """The record's columns, and over them the row that they mean.

        Raises PipeError for a record without one of the columns, or no reference in it.
        """
        row: dict[str, Any] = dict.fromkeys(("system", "reasoning", "answer", "reference"))
        row["id"] = record.get(self.id) or where
        question = str(self._value(record, self.question, where))
        row["question"] = self.prompt.replace("{question}", question)
        row["system"] = self.system
        if self.answer:
            row["answer"] = str(self._value(record, self.answer, where))
        if self.reasoning:
            row["reasoning"] = str(self._value(record, self.reasoning, where))
        row["reference"] = self._reference(record, where)
        return {**record, **row}

    def _reference(self, record: Mapping[str, Any], where: str) -> str:
        column = self.reference or str(self.answer)
        text = str(self._value(record, column, where))
        if self.reference_pattern is None:
            return text
        found = re.search(self.reference_pattern, text)
        if found is None or found[1] is None:
            raise PipeError(
                f"{where}: reference_pattern finds nothing in the column {column}.",
                "Correct the pattern in the task's file.",
            )
        return found[1].strip()

    def _value(self, record: Mapping[str, Any], column: str, where: str) -> Any:
        if record.get(column) is None:
            raise PipeError(
                f"{where}: nothing in the column {column}. Found: {', '.join(map(str, record))}.",
                "Name the column in the task's file.",
            )
        return record[column]


def builtin_tasks() -> list[str]:
    return sorted(path.stem for path in _BUILTIN.glob("*.yaml"))


def builtin_path(name: str) -> Path:
    return _BUILTIN / f"{name}.yaml"


def read_task_file(path: Path) -> TaskFile:
    """Raises PipeError naming every wrong key at once."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        return TaskFile.model_validate(values)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, problem['loc'])) or 'task'}: {problem['msg']}"
            for problem in error.errors()
        )
        raise PipeError(
            f"The task {path} does not hold: {problems}",
            "It names a dataset or a file, and the columns question and reference, or answer.",
        ) from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise PipeError(f"The task {path} cannot be read: {error}", "Check the file.") from None
