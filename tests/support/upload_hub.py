"""A loopback server that speaks as much of the hub's protocol as publishing a model needs.

What it answers is what huggingface_hub 1.33 asks for (hf_api.py, _commit_api.py, lfs.py).
"""

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Lock
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

from tests.support.loopback import Answering, served

LARGE = (".gguf", ".safetensors")
"""Endings that go to large file storage, as the hub's .gitattributes has it."""
FRONT_MATTER = re.compile(r"\A---\n(.*?)\n---\n", re.DOTALL)


@dataclass
class Repo:
    private: bool
    files: dict[str, bytes] = field(default_factory=lambda: {".gitattributes": b"*.gguf lfs\n"})
    commits: list[str] = field(default_factory=lambda: ["0" * 40])
    messages: list[str] = field(default_factory=list)


@dataclass
class UploadHub:
    """Repositories by OWNER/NAME; `token` may write to those of `owner` alone.

    `cut_after` cuts every connection that brings a large file once so many have arrived;
    `ignored` are paths that a .gitignore of the repository keeps out.
    """

    owner: str = "me"
    token: str = "hf_theonethatmaywrite"
    cut_after: int | None = None
    ignored: frozenset[str] = frozenset()
    url: str = ""
    repos: dict[str, Repo] = field(default_factory=dict)
    stored: dict[str, bytes] = field(default_factory=dict)
    """Large files that have arrived, committed or not, by their sha256."""
    requests: list[str] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    lock: Lock = field(default_factory=Lock)

    @contextmanager
    def running(self) -> Iterator["UploadHub"]:
        with served(_Handler, server_hub=self) as self.url:
            yield self

    def uploads(self) -> list[str]:
        """The large files whose bytes were sent, in the order in which they came."""
        return [each for each in self.requests if each.startswith("PUT ")]


class _Handler(Answering):
    wbufsize = -1  # an answer in one packet: the client waits for the second of two
    server_hub: UploadHub

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        hub = self.server_hub
        if self.command == "PUT":
            return self._store(path.rpartition("/")[2])
        self._body = self._read()
        with hub.lock:
            hub.requests.append(f"{self.command} {path}")
            hub.bodies.append(self._body)
        if self.headers.get("Authorization") != f"Bearer {hub.token}":
            return self._fail(401, "Invalid username or password.")
        for pattern, answer in _ROUTES.items():
            if found := re.fullmatch(pattern, path):
                with hub.lock:
                    return answer(self, *found.groups())
        return self._fail(404, f"no {path}")

    def _read(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        content = b""
        while size := int(self.rfile.readline(), 16):
            content += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return content

    def _store(self, oid: str) -> None:
        hub = self.server_hub
        with hub.lock:
            if hub.cut_after is not None and len(hub.stored) >= hub.cut_after:
                self.rfile.read(8)
                self.close_connection = True
                return None
            content = self._read()
            hub.requests.append(f"PUT {oid}")
            hub.bodies.append(content)
            if hashlib.sha256(content).hexdigest() != oid:
                return self._fail(400, "not that content")
            hub.stored[oid] = content
        return self._send(200, b"", {"ETag": '"1"'})

    def _create(self) -> None:
        asked = json.loads(self._body)
        name = f"{asked['organization']}/{asked['name']}"
        url = f"{self.server_hub.url}/{name}"
        if asked["organization"] != self.server_hub.owner:
            return self._fail(403, "You don't have the rights to create a model under that name")
        if name in self.server_hub.repos:
            return self._json({"error": "You already created this model", "url": url}, 409)
        self.server_hub.repos[name] = Repo(asked.get("visibility") == "private")
        return self._json({"url": url, "name": name})

    def _validate(self) -> None:
        found = FRONT_MATTER.match(json.loads(self._body)["content"])
        values = yaml.safe_load(found[1]) if found else None
        errors = [] if isinstance(values, dict) else [{"message": "no metadata"}]
        if not errors and values["license"] == "other" and "license_name" not in values:
            errors.append({"message": '"license_name" is required'})
        self._json({"errors": errors, "warnings": []}, 400 if errors else 200)

    def _info(self, name: str) -> None:
        if repo := self._repo(name):
            siblings = [{"rfilename": path} for path in repo.files]
            facts = {"private": repo.private, "gated": False, "disabled": False, "tags": []}
            self._json({"id": name, "sha": repo.commits[-1], "siblings": siblings, **facts})

    def _preupload(self, name: str) -> None:
        repo = self._repo(name)
        if repo is None:
            return
        files = []
        for asked in json.loads(self._body)["files"]:
            path = asked["path"]
            mode = "lfs" if path.endswith(LARGE) else "regular"
            there = repo.files.get(path)
            files.append(
                {
                    "path": path,
                    "uploadMode": mode,
                    "shouldIgnore": path in self.server_hub.ignored,
                    "oid": None if there is None else _oid(path, there),
                }
            )
        self._json({"files": files})

    def _batch(self, name: str) -> None:
        hub, objects = self.server_hub, []
        for asked in json.loads(self._body)["objects"]:
            known = {"oid": asked["oid"], "size": asked["size"]}
            if asked["oid"] not in hub.stored:
                verify = {"href": f"{hub.url}/{name}.git/verify"}
                known["actions"] = {
                    "upload": {"href": f"{hub.url}/lfs/{asked['oid']}"},
                    "verify": verify,
                }
            objects.append(known)
        self._json({"objects": objects, "transfer": "basic"})

    def _verify(self, name: str) -> None:
        asked = json.loads(self._body)
        content = self.server_hub.stored.get(asked["oid"])
        if content is None or len(content) != asked["size"]:
            return self._fail(404, "that file has not arrived")
        return self._json({})

    def _commit(self, name: str) -> None:
        repo = self._repo(name)
        if repo is None:
            return
        lines = [json.loads(line) for line in self._body.splitlines()]
        for line in lines[1:]:
            value = line["value"]
            if line["key"] == "file":
                repo.files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile" and value["oid"] in self.server_hub.stored:
                repo.files[value["path"]] = self.server_hub.stored[value["oid"]]
            else:
                return self._fail(400, f"no such operation or file: {line}")
        repo.messages.append(lines[0]["value"]["summary"])
        repo.commits.append(hashlib.sha1(str(len(repo.commits)).encode()).hexdigest())
        oid = repo.commits[-1]
        self._json({"commitUrl": f"{self.server_hub.url}/{name}/commit/{oid}", "commitOid": oid})

    def _paths_info(self, name: str) -> None:
        repo = self._repo(name)
        if repo is None:
            return
        wanted = parse_qs(self._body.decode()).get("paths", [])
        there = {path: repo.files[path] for path in wanted if path in repo.files}
        self._json([_entry(path, content) for path, content in there.items()])

    def _repo(self, name: str) -> Repo | None:
        """None after having answered that there is none."""
        if name not in self.server_hub.repos:
            self._fail(404, "Repository not found", "RepoNotFound")
        return self.server_hub.repos.get(name)

    def _fail(self, status: int, message: str, code: str = "") -> None:
        headers = {"X-Error-Code": code, "X-Error-Message": message} if code else {}
        self._send(status, json.dumps({"error": message}).encode(), headers)


_ROUTES = {
    r"/api/repos/create": _Handler._create,
    r"/api/validate-yaml": _Handler._validate,
    r"/api/models/([^/]+/[^/]+)(?:/revision/[^/]+)?": _Handler._info,
    r"/api/models/([^/]+/[^/]+)/preupload/main": _Handler._preupload,
    r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch": _Handler._batch,
    r"/([^/]+/[^/]+)\.git/verify": _Handler._verify,
    r"/api/models/([^/]+/[^/]+)/commit/main": _Handler._commit,
    r"/api/models/([^/]+/[^/]+)/paths-info/[^/]+": _Handler._paths_info,
}


def _oid(path: str, content: bytes) -> str:
    """As `preupload` names what is there: sha256 of a large file, git's own hash of another."""
    if path.endswith(LARGE):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()


def _entry(path: str, content: bytes) -> dict[str, Any]:
    known: dict[str, Any] = {"type": "file", "path": path, "size": len(content), "oid": "1" * 40}
    if path.endswith(LARGE):
        digest = hashlib.sha256(content).hexdigest()
        known["lfs"] = {"oid": digest, "size": len(content), "pointerSize": 134}
    return known
