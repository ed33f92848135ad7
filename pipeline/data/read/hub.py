"""Datasets on the hub: pinned by commit, streamed, and no code of theirs is ever run.

The token comes from the environment alone (HF_TOKEN); a login's file is not read.
With HF_HUB_OFFLINE only what lies in the hub's cache is used.
"""

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from typing import Any, Literal

from pipeline.data.read.chunks import CHUNK_ROWS, Chunk, chunks_of_batches
from pipeline.errors import PipeError
from pipeline.run.secrets import harmless

_BEGINNING: dict[str, Any] = {"rows": 0, "stream": None, "skip": 0}
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Place:
    """A split of a dataset on the hub."""

    dataset: str
    config: str | None
    split: str
    revision: str | None
    """A commit, a branch, or None for the newest."""


def pinned(place: Place) -> str:
    """The commit to read: the recipe's own, else what its branch, or the newest, now is.

    Raises PipeError where the dataset is not there or the hub does not answer.
    """
    if place.revision and _COMMIT.fullmatch(place.revision):
        return place.revision
    from huggingface_hub import HfApi

    with _explained(place):
        if _offline():
            return _snapshot(place, place.revision).rpartition("/")[2]
        info = HfApi(token=token()).dataset_info(place.dataset, revision=place.revision)
        return str(info.sha)


def token() -> str | Literal[False]:
    """HF_TOKEN, or False, which keeps huggingface_hub from looking elsewhere."""
    return os.environ.get("HF_TOKEN") or False


class Stream:
    """A split's records in order, fetched as they are asked for."""

    def __init__(self, place: Place, revision: str) -> None:
        self._place = place
        self._revision = revision

    def chunks(self, start: int, after: str | None, limit: int | None) -> Iterator[Chunk]:
        """Chunks from number `start` on; `after` as the chunk before it had it."""
        state: dict[str, Any] = json.loads(after) if after else _BEGINNING
        with _explained(self._place):
            dataset = self._dataset.with_format("arrow")
            if state["stream"]:
                dataset.load_state_dict(state["stream"])
            number, first = (start, state["rows"]) if state["stream"] else (0, 0)
            tables = dataset.iter(batch_size=CHUNK_ROWS)
            batches = (table.combine_chunks().to_batches()[0] for table in tables)
            # the stream's state is read anew from the second chunk on: datasets 4.8 counts the one
            # that a resumed stream begins within twice, and would pass over rows
            passed = islice(batches, state["skip"], None)
            skip = state["skip"]
            for chunk in chunks_of_batches(passed, limit, number, first):
                skip, stream = (
                    (skip + 1, state["stream"])
                    if state["stream"] and chunk.number == number
                    else (0, dataset.state_dict())
                )
                if chunk.number >= start:
                    here = {"rows": chunk.first + len(chunk), "stream": stream, "skip": skip}
                    yield replace(chunk, after=json.dumps(here))

    @cached_property
    def _dataset(self) -> Any:
        from datasets import load_dataset

        place = self._place
        if _offline():
            folder = _snapshot(place, self._revision)
            return load_dataset(folder, place.config, split=place.split, streaming=True)
        return load_dataset(
            place.dataset,
            place.config,
            split=place.split,
            revision=self._revision,
            streaming=True,
            token=token(),
        )


def _offline() -> bool:
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def _snapshot(place: Place, revision: str | None) -> str:
    """The folder of a dataset that `hf download` left in the cache."""
    from huggingface_hub import snapshot_download

    folder = snapshot_download(
        place.dataset, repo_type="dataset", revision=revision, local_files_only=True
    )
    return str(folder)


@contextmanager
def _explained(place: Place) -> Iterator[None]:
    """Turn what the hub's libraries raise into a PipeError with the next step."""
    import httpx

    try:
        yield
    # RuntimeError: a repository with a loading script; TypeError: a column of mixed types;
    # Arrow's errors are ValueErrors
    except (httpx.HTTPError, OSError, ValueError, RuntimeError, TypeError) as error:
        raise _explain(place, error) from None


def _explain(place: Place, error: Exception) -> PipeError:
    from huggingface_hub.errors import GatedRepoError

    name = place.dataset
    reason = harmless(_first_line(error))
    status = getattr(getattr(error, "response", None), "status_code", None)
    gated = isinstance(error, GatedRepoError) or "gated dataset" in reason
    if gated or (status == 403):
        return PipeError(
            f"The dataset {name} is gated: {reason}",
            f"Accept its terms at https://huggingface.co/datasets/{name}, "
            "then: export HF_TOKEN=... and run it again.",
        )
    if _offline():
        return PipeError(
            f"HF_HUB_OFFLINE is set, and the dataset {name} is not in the hub's cache: {reason}",
            f"Fetch it where there is a network: hf download --repo-type dataset {name}",
        )
    if _is_no_table(error):
        return PipeError(
            f"The dataset {name} cannot be read as a table: {reason}",
            "Download one of its .jsonl or .parquet files and name that in data.sources: "
            "there a bad line is a reject.",
        )
    if _is_missing(error):
        return PipeError(
            f"The hub has no dataset {name} that you may read: {reason}",
            "Check data.sources (dataset, config, split, revision); a private one needs HF_TOKEN; "
            "a local file ends in .jsonl or .parquet.",
        )
    return PipeError(
        f"The dataset {name} cannot be fetched: {reason}",
        "Check the network and run it again: it goes on where it was.",
    )


def _first_line(error: Exception) -> str:
    """What an error says first; `Bad request:` alone says nothing."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    taken = lines[:2] if lines and lines[0].endswith(":") else lines[:1]
    return " ".join(taken) or type(error).__name__


def _is_no_table(error: Exception) -> bool:
    """A script, columns of mixed types, a malformed line."""
    from datasets.exceptions import DatasetGenerationError
    from datasets.table import CastError
    from pyarrow import ArrowException

    kinds = (ArrowException, CastError, DatasetGenerationError, UnicodeDecodeError)
    return isinstance(error, (*kinds, RuntimeError, TypeError)) or "convert" in str(error)


def _is_missing(error: Exception) -> bool:
    """No such repository, revision, config, split or file."""
    from huggingface_hub.errors import (
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    if isinstance(error, LocalEntryNotFoundError):
        return False
    # datasets' own errors are FileNotFoundErrors; ValueError is an unknown config or split
    named = (RepositoryNotFoundError, RevisionNotFoundError, HFValidationError, FileNotFoundError)
    return isinstance(error, named) or type(error) is ValueError
