"""A base folder with a small tokenizer."""

import pytest

from tests.support.tokenizer import write_base


@pytest.fixture
def base(tmp_path):
    return write_base(tmp_path / "base")
