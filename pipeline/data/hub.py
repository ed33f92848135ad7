"""Datasets on the hub: pinned by commit, streamed, and no code of theirs is ever run.

The token is the one that huggingface_hub finds by itself (HF_TOKEN, or its own login).
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from pipeline.errors import PipeError
from pipeline.recipe import Source

_COMMIT = re.compile(r"[0-9a-f]{40}")


def pinned(source: Source) -> str:
    """The commit to read: the recipe's own, else what its branch, or the newest, now is.

    Raises PipeError where the dataset is not there or the hub does not answer.
    """
    if source.revision and _COMMIT.fullmatch(source.revision):
        return source.revision
    from huggingface_hub import HfApi

    with _explained(source):
        return str(HfApi().dataset_info(source.dataset, revision=source.revision).sha)


def stream(source: Source, revision: str) -> Iterator[Mapping[str, Any]]:
    """The dataset's records in order, fetched as they are asked for."""
    from datasets import load_dataset

    with _explained(source):
        yield from load_dataset(
            source.dataset, source.config, split=source.split, revision=revision, streaming=True
        )


@contextmanager
def _explained(source: Source) -> Iterator[None]:
    """Turn what the hub's libraries raise into a PipeError with the next step."""
    import httpx

    try:
        yield
    # RuntimeError: a repository with a loading script
    except (httpx.HTTPError, OSError, ValueError, RuntimeError) as error:
        raise _explain(source, error) from None


def _explain(source: Source, error: Exception) -> PipeError:
    from huggingface_hub.errors import GatedRepoError

    name = source.dataset
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    status = getattr(getattr(error, "response", None), "status_code", None)
    gated = isinstance(error, GatedRepoError) or "gated dataset" in reason
    if gated or (status == 403):
        return PipeError(
            f"The dataset {name} is gated: {reason}",
            f"Accept its terms at https://huggingface.co/datasets/{name}, "
            "then: export HF_TOKEN=... and run it again.",
        )
    if _is_missing(error):
        return PipeError(
            f"The hub has no dataset {name} that you may read: {reason}",
            "Check data.sources (dataset, config, split, revision); a private one needs HF_TOKEN; "
            "a local file ends in .jsonl or .parquet.",
        )
    return PipeError(
        f"The dataset {name} cannot be fetched: {reason}",
        "Check the network and run it again, or name a local .jsonl or .parquet file.",
    )


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
