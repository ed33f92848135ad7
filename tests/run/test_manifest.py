"""A file's hash: taken again whenever the file may be another one, and not otherwise."""

import os
from pathlib import Path

import pytest

from pipeline.run import manifest
from pipeline.run.manifest import describe


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files whose bytes were read, in order."""
    read: list[Path] = []
    own = manifest.sha256_of

    def sha256_of(path: Path) -> str:
        read.append(path)
        return own(path)

    monkeypatch.setattr(manifest, "sha256_of", sha256_of)
    monkeypatch.setattr(manifest, "_hashed", {})
    return read


def test_a_file_written_a_moment_ago_is_always_read_again(tmp_path: Path) -> None:
    """Two writes within one tick of the disk's clock leave the same size and times."""
    path, found = tmp_path / "a", set()
    for number in range(200):
        path.write_text(f"{number:03}")
        found.add(describe(path).sha256)
    assert len(found) == 200


def test_a_file_that_rests_is_read_once(
    tmp_path: Path, hashed: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a"
    path.write_text("one")
    monkeypatch.setattr(manifest, "_SETTLED_NS", -1)
    first = describe(path)
    assert describe(path) == first and hashed == [path]
    path.write_text("other")
    assert describe(path).bytes == 5 and describe(path) != first and hashed == [path, path]


def test_a_file_whose_old_time_is_put_back_is_still_read_again(
    tmp_path: Path, hashed: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a"
    path.write_text("one")
    monkeypatch.setattr(manifest, "_SETTLED_NS", -1)
    first, times = describe(path), path.stat()
    path.write_text("two")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    while path.stat().st_ctime_ns == times.st_ctime_ns:  # the clock's next tick
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert describe(path) != first and len(hashed) == 2
