"""The hub, through its own client: a repository, one commit, and a look at what arrived."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from pipeline.errors import PipeError
from pipeline.publish.contents import Item
from pipeline.publish.wish import Wish
from pipeline.run import Emit, Note
from pipeline.run.manifest import Entry

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd, HfApi

_HUBS_OWN = {".gitattributes", ".gitignore"}


@dataclass(frozen=True)
class Published:
    repository: str
    url: str
    commit: str
    changed: bool
    """False where everything was there already."""
    private: bool
    files: Mapping[str, Entry]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def own_token() -> str | None:
    """HF_TOKEN, or what `hf auth login` left, as the hub's client finds it."""
    from huggingface_hub import get_token

    return get_token()


def upload(wish: Wish, items: Mapping[str, Item], run: str, emit: Emit) -> Published:
    """Make the repository where there is none, and bring it to these files in one commit.

    What the hub has already, also from an upload that was cut off, is not sent again.
    Raises PipeError where there is no token, and where the hub refuses or does not answer.
    """
    from huggingface_hub import HfApi

    token = own_token()
    if token is None:
        raise PipeError(
            "There is no token for the hub.",
            "Make one that may write, at https://huggingface.co/settings/tokens, then: "
            "export HF_TOKEN=... (or: hf auth login)",
        )
    api = HfApi(token=token, library_name="r1pipe")
    total = sum(item.entry.bytes for item in items.values())
    with _explained(wish.repository, token):
        url = api.create_repo(wish.repository, private=wish.private or None, exist_ok=True)
        before = api.model_info(wish.repository)
        _check_private(wish, bool(before.private))
        emit(Note(f"{len(items)} files, {total / 1e6:,.1f} MB, go to {url}"))
        commit = api.create_commit(
            wish.repository, [_added(item) for item in items.values()], commit_message=f"Run {run}"
        )
        _check_arrived(api, wish.repository, commit.oid, items)
    there = {each.rfilename for each in before.siblings or ()}
    _tell_others(sorted(there - set(items) - _HUBS_OWN), wish, emit)
    changed = commit.oid != before.sha
    files = {path: item.entry for path, item in items.items()}
    return Published(wish.repository, str(url), commit.oid, changed, bool(before.private), files)


def _added(item: Item) -> "CommitOperationAdd":
    from huggingface_hub import CommitOperationAdd

    return CommitOperationAdd(path_in_repo=item.path, path_or_fileobj=item.source)


def _check_private(wish: Wish, private: bool) -> None:
    if wish.private and not private:
        raise PipeError(
            f"{wish.repository} is there already, and is public. Nothing was sent.",
            "Make it private in its settings, or choose another name.",
        )


def _check_arrived(api: "HfApi", repository: str, commit: str, items: Mapping[str, Item]) -> None:
    """Raises PipeError for a file that is not in the commit, or not as it was sent."""
    from huggingface_hub.hf_api import RepoFile

    there = {
        each.path: each
        for each in api.get_paths_info(repository, list(items), revision=commit)
        if isinstance(each, RepoFile)
    }
    for path, item in items.items():
        found = there.get(path)
        digest = found.lfs.sha256 if found and found.lfs else item.entry.sha256
        if found is None or (found.size, digest) != (item.entry.bytes, item.entry.sha256):
            raise PipeError(
                f"{path} did not arrive in {repository} as it was sent.",
                "A .gitignore in that repository may keep it out. Else publish it again.",
            )


def _tell_others(others: list[str], wish: Wish, emit: Emit) -> None:
    if others and wish.only is None:
        names = ", ".join(others)
        emit(Note(f"{wish.repository} also holds files that are not of this run: {names}.", True))


@contextmanager
def _explained(repository: str, token: str) -> Iterator[None]:
    """Turn what the hub's client raises into a PipeError with the next step, without the token."""
    from httpx import HTTPError

    try:
        yield
    # the client's own errors are HTTPErrors or OSErrors; RuntimeError: a file's upload, by Xet too
    except (HTTPError, OSError, ValueError, RuntimeError) as error:
        raise _explain(repository, error, token) from None


def _explain(repository: str, error: Exception, token: str) -> PipeError:
    chain = [error, *filter(None, [error.__cause__])]
    reason = " ".join(filter(None, map(_first_line, chain))).replace(token, "[token]")
    statuses = (getattr(getattr(each, "response", None), "status_code", None) for each in chain)
    status = next(filter(None, statuses), None)
    if status == 401:
        return PipeError(
            f"The hub does not take this token: {reason}",
            "Make one that may write, at https://huggingface.co/settings/tokens, then: "
            "export HF_TOKEN=...",
        )
    if status in (403, 404):
        owner = repository.partition("/")[0]
        return PipeError(
            f"This token may not write to {repository}: {reason}",
            f"Give it leave to write to {owner}'s repositories, or publish under your own name.",
        )
    if status == 400 or isinstance(error, ValueError):
        return PipeError(f"The hub refuses what was sent to {repository}: {reason}")
    return PipeError(
        f"{repository} is not published: {reason}",
        "Run it again: it goes on where it was, what arrived is not sent again.",
    )


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
