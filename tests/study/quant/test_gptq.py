"""GPTQ in a process of its own: what it is given, and its words where it fails."""

import json
import sys
from pathlib import Path

import pytest

from pipeline.base import Base
from pipeline.errors import PipeError
from pipeline.study.quant import gptq

WORKS = """
import json
class QuantizeConfig:
    def __init__(self, **given): self.given = given
class GPTQModel:
    @classmethod
    def load(cls, folder, config, **how):
        self = cls()
        self.seen = {"folder": folder, "config": config.given, "how": how}
        return self
    def quantize(self, rows, batch_size): self.seen["rows"] = rows
    def save(self, out): open(out + "/seen.json", "w").write(json.dumps(self.seen))
"""
FAILS = (
    "import sys\nprint('much ado', file=sys.stderr)\nraise RuntimeError('no kernel for hf_{}')\n"
)
MODEL = Base("tiny", Path("tiny"), None)


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A gptqmodel of so many words, for the Python of the tests."""

    def install(code: str) -> None:
        for name in ("gptqmodel", "torch"):
            about = tmp_path / "packages" / f"{name}-9.9.dist-info"
            about.mkdir(parents=True)
            (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 9.9\n")
        (tmp_path / "packages" / "gptqmodel.py").write_text(code)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path / "packages"))
        monkeypatch.setenv(gptq.PYTHON, sys.executable)

    return install


def test_the_tool_gets_the_model_the_rows_and_four_bits(installed, tmp_path: Path) -> None:
    installed(WORKS)
    gptq.find()
    gptq.quantize(MODEL, [[1, 2, 3], [4, 5]], tmp_path, "cpu")
    seen = json.loads((tmp_path / "seen.json").read_text())
    assert Path(seen["folder"]) == Path("tiny").absolute()
    assert seen["config"] == {"bits": 4, "group_size": 128, "sym": True, "desc_act": False}
    assert seen["how"]["device"] == "cpu" and seen["how"]["trust_remote_code"] is False
    assert seen["rows"][1] == {"input_ids": [4, 5], "attention_mask": [1, 1]}
    assert json.loads((tmp_path / gptq.VERSIONS).read_text())["gptqmodel"] == "9.9"


def test_a_tool_that_fails_is_told_in_its_own_last_words_without_secrets(
    installed, tmp_path: Path
) -> None:
    installed(FAILS.format("x" * 20))
    with pytest.raises(PipeError) as failed:
        gptq.quantize(MODEL, [[1]], tmp_path, "cpu")
    assert failed.value.message == "RuntimeError: no kernel for HF_TOKEN"


def test_a_tool_that_is_not_installed_is_told_in_pythons_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(gptq.PYTHON, raising=False)
    with pytest.raises(PipeError, match="ModuleNotFoundError: No module named 'gptqmodel'"):
        gptq.find()
    with pytest.raises(PipeError, match="ModuleNotFoundError: No module named 'gptqmodel'"):
        gptq.quantize(MODEL, [[1]], tmp_path, "cpu")


def test_a_python_that_is_none_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(gptq.PYTHON, str(tmp_path / "nobody"))
    with pytest.raises(PipeError, match="PIPE_GPTQ_PYTHON cannot be started"):
        gptq.quantize(MODEL, [[1]], tmp_path, "cpu")
