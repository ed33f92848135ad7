"""A base to merge adapters into."""

from pathlib import Path

import pytest

from pipeline.gguf.weights import Checkpoint
from tests.gguf.peft_cases import write_base


@pytest.fixture
def base(tmp_path: Path) -> Checkpoint:
    return write_base(tmp_path / "base")
