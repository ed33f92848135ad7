"""Is there room: asked of the real disk, said with the figures."""

import shutil

import pytest

from pipeline.errors import PipeError
from pipeline.run.disk import require_space


def test_more_than_is_free_is_refused_with_both_figures(tmp_path):
    free = shutil.disk_usage(tmp_path).free
    with pytest.raises(PipeError) as error:
        require_space(tmp_path, free + 10**12, "Training")
    # another process may write meanwhile
    needed, there = (float(word.replace(",", "")) for word in _figures(error.value.message))
    assert needed - there == pytest.approx(1000, abs=20)
    assert error.value.message.startswith(f"Training needs {needed:,.1f} GB in {tmp_path}, ")
    assert "larger disk" in error.value.hint


def _figures(message):
    words = message.split()
    return [words[n - 1] for n, word in enumerate(words) if word == "GB"]


def test_what_there_is_room_for_passes(tmp_path):
    require_space(tmp_path, 0, "Training")
    require_space(tmp_path, shutil.disk_usage(tmp_path).free // 2, "Training")


def test_a_folder_that_is_not_there_yet_is_asked_of_where_it_will_be(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asked = []

    def usage(place):
        asked.append(place)
        return shutil._ntuple_diskusage(100, 50, 50)

    monkeypatch.setattr("pipeline.run.disk.shutil.disk_usage", usage)
    relative = tmp_path.relative_to(tmp_path) / "runs" / "a"
    for folder in (tmp_path / "runs" / "a", relative):
        require_space(folder, 50, "Training")
        with pytest.raises(PipeError, match=r"needs 0\.000 GB"):
            require_space(folder, 51, "Training")
    assert {place.resolve() for place in asked} == {tmp_path}
