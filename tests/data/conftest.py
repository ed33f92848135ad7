"""A base folder with a small tokenizer, and a file of reasoning rows."""

import pytest

from tests.data.general_rows import OWN
from tests.data.support import record, write_rows
from tests.support.tokenizer import write_base


@pytest.fixture
def base(tmp_path):
    return write_base(tmp_path / "base")


@pytest.fixture
def own(tmp_path):
    return write_rows(tmp_path / "own.jsonl", [record(n) for n in range(OWN)])
