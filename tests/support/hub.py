"""A loopback server that speaks as much of the hub's protocol as downloads need."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import parse_qs, unquote, urlsplit

from tests.support.loopback import Answering, served

Key = tuple[Literal["model", "dataset"], str]

API = re.compile(
    r"/api/(model|dataset)s/([^/]+/[^/]+)(?:/(revision|tree|paths-info)/([^/]+)(/.*)?)?"
)
RESOLVE = re.compile(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)")


def commit_of(folder: Path) -> str:
    """40 hex digits that change with any file of the folder."""
    digest = hashlib.sha1(usedforsecurity=False)
    for path in files_of(folder):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def files_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


@dataclass
class HubServer:
    """Serves folders as repositories: branch `main` at one commit each.

    Files of a repository in `gated` answer 403 as the real hub does; its metadata does not.
    `requests` holds "METHOD path" of everything that was asked.
    """

    repos: Mapping[Key, Path]
    gated: frozenset[str] = frozenset()
    url: str = ""
    kept: frozenset[str] = frozenset()
    """Earlier commits that are still answered, with the files of now."""
    requests: list[str] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)
    """Every Authorization header that came."""
    sent: int = 0
    """Bytes of files."""

    @contextmanager
    def running(self) -> Iterator["HubServer"]:
        with served(_Handler, server_hub=self) as self.url:
            yield self


class _Handler(Answering):
    server_hub: HubServer

    def _answer(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        self._body = self.rfile.read(length).decode()
        path = unquote(urlsplit(self.path).path)
        self.server_hub.requests.append(f"{self.command} {path}")
        if "Authorization" in self.headers:
            self.server_hub.tokens.add(self.headers["Authorization"])
        if found := RESOLVE.fullmatch(path):
            kind, name, revision, file = found.groups()
            self._resolve("dataset" if kind else "model", name, revision, file)
        elif found := API.fullmatch(path):
            self._api(*found.groups())
        else:
            self._fail(404, "EntryNotFound")

    def _folder(self, kind: str, name: str, revision: str) -> Path | None:
        """The repository at that revision; None after having answered that there is none."""
        folder = self.server_hub.repos.get((kind, name))  # type: ignore[call-overload]
        if folder is None:
            self._fail(404, "RepoNotFound")
        elif revision not in {"main", commit_of(folder), *self.server_hub.kept}:
            self._fail(404, "RevisionNotFound")
        else:
            return Path(folder)
        return None

    def _api(self, kind: str, name: str, verb: str, revision: str, inside: str | None) -> None:
        folder = self._folder(kind, name, revision or "main")
        if folder is None:
            return
        if verb == "tree":
            self._tree(folder, (inside or "").strip("/"))
        elif verb == "paths-info":
            wanted = self._wanted()
            entries = [entry for entry in _entries(folder) if entry["path"] in wanted]
            self._json(entries)
        else:
            siblings = [{"rfilename": entry["path"]} for entry in _entries(folder, "file")]
            facts = {"private": False, "gated": False, "disabled": False, "tags": []}
            self._json({"id": name, "sha": commit_of(folder), "siblings": siblings, **facts})

    def _tree(self, folder: Path, inside: str) -> None:
        if inside and not (folder / inside).is_dir():
            return self._fail(404, "EntryNotFound")
        recursive = parse_qs(urlsplit(self.path).query).get("recursive", ["False"])[0]
        prefix = f"{inside}/" if inside else ""
        entries = [e for e in _entries(folder) if str(e["path"]).startswith(prefix)]
        if recursive.lower() != "true":
            entries = [e for e in entries if "/" not in str(e["path"]).removeprefix(prefix)]
        return self._json(entries)

    def _wanted(self) -> list[str]:
        if "json" in self.headers.get("Content-Type", ""):
            return list(json.loads(self._body)["paths"])
        return parse_qs(self._body).get("paths", [])

    def _resolve(self, kind: str, name: str, revision: str, file: str) -> None:
        folder = self._folder(kind, name, revision)
        if folder is None:
            return
        if name in self.server_hub.gated:
            return self._fail(403, "GatedRepo")
        if not (folder / file).is_file():
            return self._fail(404, "EntryNotFound", commit_of(folder))
        return self._file(folder, (folder / file).read_bytes())

    def _file(self, folder: Path, content: bytes) -> None:
        headers = {
            "ETag": f'"{hashlib.sha1(content, usedforsecurity=False).hexdigest()}"',
            "X-Repo-Commit": commit_of(folder),
            "Accept-Ranges": "bytes",
        }
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if not asked:
            self.server_hub.sent += len(content) if self.command == "GET" else 0
            return self._send(200, content, headers)
        first = int(asked[1])
        last = min(int(asked[2] or len(content)), len(content) - 1)
        headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
        self.server_hub.sent += last + 1 - first
        return self._send(206, content[first : last + 1], headers)

    def _fail(self, status: int, code: str, commit: str = "") -> None:
        headers = {"X-Error-Code": code, "X-Error-Message": code}
        self._send(status, b"{}", headers | ({"X-Repo-Commit": commit} if commit else {}))


def _entries(folder: Path, kind: str = "") -> list[dict[str, object]]:
    """Every file and directory as the tree call lists them, of one kind if one is given."""
    entries: list[dict[str, object]] = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        oid = hashlib.sha1(name.encode(), usedforsecurity=False).hexdigest()
        size = path.stat().st_size if path.is_file() else 0
        type_ = "file" if path.is_file() else "directory"
        entries.append({"type": type_, "oid": oid, "size": size, "path": name})
    return [entry for entry in entries if kind in ("", entry["type"])]
