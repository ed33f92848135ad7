"""Figures in TensorBoard, read back by itself; what the others are asked, and their faults."""

import importlib.util
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from pipeline.errors import PipeError
from pipeline.run.events import Event, Note
from pipeline.train.trackers import Trackers, check_trackers, open_trackers

SETTINGS = {"learning_rate": 2e-4, "lora": {"r": 16}}


class Library(ModuleType):
    """A stand-in for wandb and trackio: keeps what it was asked, in the order of the calls."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__spec__ = ModuleSpec(name, None)
        self.inits: list[dict[str, Any]] = []
        self.told: list[tuple[int, dict[str, float]]] = []
        self.finished = 0
        self.refuses: Callable[[dict[str, Any]], bool] = lambda _: False
        self.fails_at = -1
        self.Settings = dict
        self.teardown = lambda: None

    def init(self, *place: str, **asked: Any) -> Any:
        sys.stdout.write("advertising")
        sys.stderr.write("more of it")
        self.inits.append(asked | {"place": place})
        if self.refuses(asked):
            raise ConnectionError("no route to the server\nand much more")
        folder = f"{asked.get('dir', '')}/wandb/offline-run-1/files"
        id = asked.get("id") or f"id{len(self.inits)}"
        run = SimpleNamespace(id=id, dir=folder, url="http://tracker/1", log=self._log)
        run.finish = self.finish
        return run

    def _log(self, values: dict[str, float], step: int) -> None:
        if step == self.fails_at:
            raise BrokenPipeError("the service is gone")
        self.told.append((step, values))

    def finish(self) -> None:
        sys.stdout.write("good bye")
        self.finished += 1


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Library:
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL", "WANDB_IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    library = Library("wandb")
    monkeypatch.setitem(sys.modules, "wandb", library)
    return library


@pytest.fixture
def trackio(monkeypatch: pytest.MonkeyPatch) -> Library:
    library = Library("trackio")
    monkeypatch.setitem(sys.modules, "trackio", library)
    return library


class Opened:
    """Trackers in a folder, with the notes that they emit."""

    def __init__(self, names: list[str], folder: Path, *, resumed: bool = False) -> None:
        self.notes: list[Note] = []
        self.trackers: Trackers = open_trackers(
            names, folder, "demo", SETTINGS, self._take, resumed=resumed
        )

    def _take(self, event: Event) -> None:
        assert isinstance(event, Note)
        self.notes.append(event)

    def steps(self, first: int, last: int) -> "Opened":
        for step in range(first, last + 1):
            self.trackers.log(step, {"loss": 1.0 / step, "mfu": None})
        return self


def scalars(folder: Path, name: str = "loss") -> list[tuple[int, float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0})
    found.Reload()
    return [(each.step, each.value) for each in found.Scalars(name)]


def test_tensorboard_reads_back_every_figure(tmp_path: Path) -> None:
    opened = Opened(["tensorboard"], tmp_path).steps(1, 5)
    opened.trackers.log(5, {"eval_loss": 0.25})
    opened.trackers.close()
    assert [step for step, _ in scalars(tmp_path)] == [1, 2, 3, 4, 5]
    assert scalars(tmp_path)[3] == (4, 0.25) and scalars(tmp_path, "eval_loss") == [(5, 0.25)]
    assert not opened.notes
    with pytest.raises(KeyError):
        scalars(tmp_path, "mfu")  # null is no figure


def test_tensorboard_shows_what_a_killed_process_had_told(tmp_path: Path) -> None:
    Opened(["tensorboard"], tmp_path).steps(1, 3)  # never closed
    assert len(scalars(tmp_path)) == 3


def test_a_resumed_training_repeats_no_step_and_leaves_none_out(tmp_path: Path) -> None:
    Opened(["tensorboard"], tmp_path).steps(1, 57)
    resumed = Opened(["tensorboard"], tmp_path, resumed=True).steps(51, 60)
    resumed.trackers.close()
    assert [step for step, _ in scalars(tmp_path)] == list(range(1, 61))


def test_another_training_in_the_same_folder_hides_the_one_before(tmp_path: Path) -> None:
    Opened(["tensorboard"], tmp_path).steps(1, 50)
    Opened(["tensorboard"], tmp_path).steps(1, 4).trackers.close()
    assert [step for step, _ in scalars(tmp_path)] == [1, 2, 3, 4]


def test_steps_done_again_after_memory_ran_out_are_told_once(
    tmp_path: Path, trackio: Library
) -> None:
    opened = Opened(["trackio"], tmp_path).steps(1, 6)
    opened.trackers.log(6, {"eval_loss": 0.5})
    opened.steps(4, 8).trackers.log(6, {"eval_loss": 0.5})
    assert [step for step, _ in trackio.told] == [1, 2, 3, 4, 5, 6, 6, 7, 8]


def test_a_note_torn_by_a_kill_does_not_stop_the_next_start(
    tmp_path: Path, trackio: Library
) -> None:
    Opened(["trackio"], tmp_path).steps(1, 2)
    (tmp_path / "state" / "step").write_text("")
    Opened(["trackio"], tmp_path, resumed=True).steps(1, 2)
    assert [step for step, _ in trackio.told] == [1, 2, 1, 2]


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "trackio"])
def test_a_library_that_is_missing_is_named_before_any_work(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(PipeError) as error:
        open_trackers([name], tmp_path / "new", "demo", SETTINGS, lambda _: None)
    assert f"pip install 'r1pipe[{name}]'" in error.value.hint
    assert not (tmp_path / "new").exists()


def test_no_tracker_asks_for_no_library_and_writes_nothing(tmp_path: Path) -> None:
    opened = Opened([], tmp_path / "new").steps(1, 3)
    opened.trackers.close()
    check_trackers(())
    assert not (tmp_path / "new").exists() and not opened.notes


def test_without_a_key_the_run_is_kept_here_and_that_is_said(
    tmp_path: Path, wandb: Library, capsys: pytest.CaptureFixture[str]
) -> None:
    opened = Opened(["wandb"], tmp_path).steps(1, 2)
    opened.trackers.close()
    (asked,) = wandb.inits
    assert (asked["mode"], asked["id"], asked["name"]) == ("offline", None, "demo")
    assert asked["config"] == SETTINGS
    (note,) = opened.notes
    assert note.warning and "WANDB_API_KEY" in note.text
    assert f"wandb sync {tmp_path}/wandb/offline-run-1" in note.text
    assert [step for step, _ in wandb.told] == [1, 2] and wandb.finished == 1
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("where", ["variable", "netrc"])
def test_with_a_key_it_goes_online_and_the_key_into_no_file(
    where: str, tmp_path: Path, wandb: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = "5ec2e7" * 6
    if where == "variable":
        monkeypatch.setenv("WANDB_API_KEY", key)
    else:
        (tmp_path / "netrc").write_text(f"machine api.wandb.ai login user password {key}\n")
        (tmp_path / "netrc").chmod(0o600)
    opened = Opened(["wandb"], tmp_path / "run").steps(1, 2)
    assert [asked["mode"] for asked in wandb.inits] == ["online"]
    assert [note.text for note in opened.notes] == ["Weights & Biases: http://tracker/1"]
    files = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert files and not any(key in path.read_text() for path in files)


def test_without_an_answer_the_run_is_kept_here(
    tmp_path: Path, wandb: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    wandb.refuses = lambda asked: asked["mode"] == "online"
    opened = Opened(["wandb"], tmp_path).steps(1, 1)
    assert [asked["mode"] for asked in wandb.inits] == ["online", "offline"]
    assert "no route to the server)" in opened.notes[0].text and len(wandb.told) == 1


def test_a_resumed_training_is_the_same_run_there_and_a_new_one_is_not(
    tmp_path: Path, wandb: Library
) -> None:
    Opened(["wandb"], tmp_path)
    Opened(["wandb"], tmp_path, resumed=True)
    Opened(["wandb"], tmp_path)
    assert [asked["id"] for asked in wandb.inits] == [None, "id1", None]
    assert all(asked["resume"] == "allow" for asked in wandb.inits)


def test_a_tracker_that_fails_is_announced_once_and_the_others_go_on(
    tmp_path: Path, wandb: Library, trackio: Library
) -> None:
    wandb.fails_at = 3
    opened = Opened(["wandb", "trackio", "tensorboard"], tmp_path)
    opened.notes.clear()
    opened.steps(1, 6).trackers.close()
    (note,) = opened.notes
    assert note.warning and "Weights & Biases failed" in note.text
    assert "BrokenPipeError: the service is gone" in note.text
    assert [step for step, _ in wandb.told] == [1, 2]
    assert len(trackio.told) == 6 and len(scalars(tmp_path)) == 6


def test_a_tracker_that_cannot_be_opened_is_left_out(tmp_path: Path, trackio: Library) -> None:
    trackio.refuses = lambda _: True
    opened = Opened(["trackio", "tensorboard"], tmp_path).steps(1, 2)
    assert [note.text.partition(" failed")[0] for note in opened.notes] == ["trackio"]
    assert len(scalars(tmp_path)) == 2


def test_ctrl_c_is_no_fault_of_a_tracker_and_closes_them(tmp_path: Path, trackio: Library) -> None:
    with pytest.raises(KeyboardInterrupt), Opened(["trackio"], tmp_path).trackers:
        raise KeyboardInterrupt
    assert trackio.finished == 1


def test_tensorboard_is_installed_where_tests_run() -> None:
    assert importlib.util.find_spec("tensorboard"), "uv sync: the dev group has it"
