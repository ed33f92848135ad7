"""SIGKILL of `pipe` at a checkpoint, at export and at registration: the same command ends it well.

Thirty kills at random moments of all stages: scripts/kill_test.py.
"""

from pathlib import Path

import pytest

from scripts.kill_bench import opened
from scripts.kill_test import kill_all
from tests.e2e.conftest import PLANTED

pytestmark = pytest.mark.e2e


def test_three_killed_commands_end_with_the_same_bytes_and_tell_no_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in PLANTED.items():
        monkeypatch.setenv(name, value)
    with opened(tmp_path, with_ollama=True) as bench:
        kills = kill_all(bench, 3, seed=11)
    assert [kill.moment.stage for kill in kills] == ["train", "export", "serve"]
    assert [kill.wrong for kill in kills] == [[], [], []]
    training = kills[0].there
    assert not any(name.startswith("train/") or name == "train" for name in training)
    assert any(name.startswith(".train.work/checkpoints/") for name in training)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {"log.txt", "adapter_model.safetensors", "Modelfile"} <= {path.name for path in files}
    assert not [path for path in files if path.name == "training_args.bin"]
    for path in files:
        content = path.read_bytes()
        assert not [name for name, value in PLANTED.items() if value.encode() in content], path
