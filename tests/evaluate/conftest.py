"""A bench for the stage."""

from pathlib import Path

import pytest

from tests.evaluate.bench import Bench


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(tmp_path / "runs" / "r", monkeypatch)
