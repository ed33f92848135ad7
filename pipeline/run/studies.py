"""What studies of a run left beside its stages, and whether the run is still as they saw it."""

import json
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal, get_args

from pipeline.errors import ChangedInput
from pipeline.recipe import written
from pipeline.run.folder import Run
from pipeline.run.manifest import NAME, Entry, describe

Study = Literal["compare", "quant", "price"]
STUDIES: tuple[Study, ...] = get_args(Study)
State = Literal["done", "stale", "changed"]
Found = dict[str, Any]

SCHEMA = 2
"""Of each study's results.json: from 2 on it holds `inputs`, as a stage's manifest does."""
QUANT_WORK, QUANT_ROWS = ".quant.work", "rows"
"""In the run's folder what `pipe quant` makes on the way; in it the rows measured, which stay."""
SHARED_ROWS = ".data.shared"
"""In a variant's folder its rows while `pipe compare` links them."""
_OTHER = {"data": "other rows", "train": "another training", "eval": "other answers"}
"""Stage that a study read -> what is there where its manifest is another now."""


@dataclass(frozen=True)
class Standing:
    """How a study stands: done, stale, or changed, which cannot be read."""

    state: State
    reason: str = ""
    """Why it is not to be relied on."""
    command: str = ""
    """What makes it anew then."""


def recorded(entries: Mapping[str, Entry]) -> Found:
    """`inputs` of results.json: files by their path below the run, or as the stages name them."""
    return {name: asdict(entry) for name, entry in sorted(entries.items())}


def results_path(run: Run, study: Study) -> Path:
    return run.root / study / "results.json"


def study_results(run: Run, study: Study) -> Found | None:
    """What the study wrote last; None where there is none.

    Raises ChangedInput where the file is no such result, and where an earlier pipe wrote it: the
    hint makes it anew of what was trained and measured already.
    """
    path = results_path(run, study)
    if not path.exists():
        return None
    found: Any = None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        schema = found["schema"]
        if schema == SCHEMA and not isinstance(found["inputs"], dict):
            raise TypeError("inputs is no object")
    except (ValueError, KeyError, TypeError) as error:
        again = study_command(study, found)
        raise ChangedInput(f"{path} cannot be read: {error}", f"Run: {again}") from None
    if schema != SCHEMA:
        raise ChangedInput(
            f"{path} has schema {schema}; this pipe writes {SCHEMA}.",
            f"Run: {study_command(study, found)}",
        )
    return dict(found)


def study_doubt(run: Run, found: Mapping[str, Any]) -> str:
    """Why what a study found is not of what is there now, as "made of ..."; empty where it is.

    A stage that is gone contradicts nothing.
    """
    others = []
    for name, entry in found["inputs"].items():
        path = PurePosixPath(name)
        if path.name != NAME or path.parent.name not in _OTHER:
            continue
        now = run.root / path
        if now.is_file() and asdict(describe(now)) != entry:
            others.append(_OTHER[path.parent.name])
    first = next((other for other in _OTHER.values() if other in others), None)
    return f"made of {first}" if first else ""


def study_states(run: Run) -> dict[Study, Standing]:
    """How each study that there is stands."""
    states: dict[Study, Standing] = {}
    for study in STUDIES:
        try:
            found = study_results(run, study)
        except ChangedInput as error:
            states[study] = Standing("changed", error.message, error.hint.removeprefix("Run: "))
            continue
        if found is not None:
            doubt = study_doubt(run, found)
            command = study_command(study, found) if doubt else ""
            states[study] = Standing("stale" if doubt else "done", doubt, command)
    return states


def study_command(study: Study, found: Any = None) -> str:
    """The command that makes a study again; of a comparison with what varied in it."""
    words = ["pipe", study]
    vary = found.get("vary") if isinstance(found, dict) else None
    if study != "compare":
        return shlex.join(words)
    if not isinstance(vary, dict):
        return "pipe compare --vary train.lora.r=8,16,32"
    for key, values in vary.items():
        words += ["--vary", f"{key}={_listed(values)}"]
    stages = found.get("stages") or ()
    words += ["--stages", "train"] if "eval" not in stages else []
    return shlex.join([*words, *(["--export"] if "export" in stages else [])])


def _listed(values: Any) -> str:
    """Values as `--vary` reads them: each as it is written in a YAML list."""
    listed = values if isinstance(values, list) else [values]
    return ",".join(written([value])[1:-1] for value in listed)
