"""TensorBoard, Weights & Biases and trackio: where a training's figures go too, when asked."""

import importlib.util
import io
import netrc
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from time import time
from types import TracebackType
from typing import Any, Protocol
from urllib.parse import urlsplit

from pipeline.errors import PipeError
from pipeline.run.events import Emit, Note
from pipeline.run.secrets import harmless

PROJECT = "r1pipe"
_TITLES = {"tensorboard": "TensorBoard", "wandb": "Weights & Biases", "trackio": "trackio"}
_STATE = "state"
_WANDB_SECONDS = 20.0
"""To answer, before a run is kept here; and again for the last figures to arrive."""


class Tracker(Protocol):
    """One library's run."""

    def log(self, step: int, values: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...


class Trackers:
    """Gives figures to every tracker; one that fails is announced once and left out from then on.

    A killed process may cost the last second of them.

    `folder/state` holds what a training that goes on needs: `step` and `wandb`, the run's id.
    """

    def __init__(self, folder: Path, emit: Emit) -> None:
        self._found: dict[str, Tracker] = {}
        self._folder, self._emit = folder, emit
        self._last = _last_step(folder)
        self._names: set[str] | None = None
        """What was told of the last step; None where that was before this process."""

    def add(self, name: str, opened: Callable[[], Tracker]) -> None:
        with self._dropped_if_it_fails(name):
            self._found[name] = opened()

    def log(self, step: int, values: Mapping[str, float | None]) -> None:
        """Figures of a step, by their names in metrics.jsonl; null ones are left out.

        What was told already, before a checkpoint was gone back to, is not told again.
        """
        known = {name: float(value) for name, value in values.items() if value is not None}
        told = self._names if step == self._last else set()
        if not self._found or step < self._last or told is None or known.keys() <= told:
            return
        for name, tracker in list(self._found.items()):
            with self._dropped_if_it_fails(name):
                tracker.log(step, known)
        if step > self._last:
            _remember(self._folder, "step", str(step))
        self._last, self._names = step, told | known.keys()

    def close(self) -> None:
        """Write what is held back. Call it however the training ends."""
        for name, tracker in list(self._found.items()):
            with self._dropped_if_it_fails(name):
                tracker.close()
        self._found.clear()

    @contextmanager
    def _dropped_if_it_fails(self, name: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # noqa: BLE001 - no fault of a tracker may end a training
            self._found.pop(name, None)
            self._emit(
                Note(
                    f"{_TITLES[name]} failed and gets no more figures: {_said(error)}. "
                    "The training goes on.",
                    warning=True,
                )
            )

    def __enter__(self) -> "Trackers":
        return self

    def __exit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        self.close()


def check_trackers(names: Sequence[str]) -> None:
    """Raises PipeError for a library that is not installed, before any work."""
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        raise PipeError(
            f"train.trackers asks for {', '.join(missing)}, not installed here.",
            f"Install: pip install 'r1pipe[{','.join(missing)}]'; or train without: "
            "--set train.trackers='[]'",
        )


def open_trackers(
    names: Sequence[str],
    folder: Path,
    run_name: str,
    settings: Mapping[str, Any],
    emit: Emit,
    *,
    resumed: bool = False,
) -> Trackers:
    """Open what is asked for, in `folder`: `tensorboard/` and `wandb/`; trackio has its own place.

    `settings` are shown as the run's configuration: no secret may be among them. `resumed` goes on
    with the run that this folder knows, else another begins. Raises PipeError for a library that is
    not installed. A tracker that cannot be opened is announced and left out; Weights & Biases
    without a key or an answer is kept here, and said.
    """
    check_trackers(names)
    if not resumed:
        shutil.rmtree(folder / _STATE, ignore_errors=True)
    trackers = Trackers(folder, emit)
    kinds: dict[str, Callable[[], Tracker]] = {
        "tensorboard": lambda: _TensorBoard(folder / "tensorboard", resumed=resumed),
        "wandb": lambda: _WandB(folder, run_name, settings, emit),
        "trackio": lambda: _Trackio(run_name, settings, resumed=resumed),
    }
    for name in dict.fromkeys(names):
        trackers.add(name, kinds[name])
    return trackers


class _TensorBoard:
    """Event files by TensorBoard's own writer, which needs no torch in this process."""

    def __init__(self, folder: Path, *, resumed: bool) -> None:
        from tensorboard.compat.proto import event_pb2, summary_pb2
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._event, self._summary = event_pb2.Event, summary_pb2.Summary
        self._writer = EventFileWriter(str(folder))
        if not resumed:  # TensorBoard then shows nothing of an earlier training in this folder
            start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
            self._write(event_pb2.Event(wall_time=time(), step=0, session_log=start))

    def log(self, step: int, values: Mapping[str, float]) -> None:
        summary = self._summary()
        for name, value in values.items():
            summary.value.add(tag=name, simple_value=value)
        self._write(self._event(wall_time=time(), step=step, summary=summary))

    def close(self) -> None:
        self._writer.close()

    def _write(self, event: Any) -> None:
        """At once: a killed process loses nothing."""
        self._writer.add_event(event)
        self._writer.flush()


class _WandB:
    """A run of Weights & Biases, online where there is a key and an answer."""

    def __init__(
        self, folder: Path, run_name: str, settings: Mapping[str, Any], emit: Emit
    ) -> None:
        import wandb

        quiet = wandb.Settings(
            silent=True, console="off", save_code=False, disable_git=True,
            x_disable_meta=True, x_disable_stats=True, x_disable_machine_info=True,
            x_save_requirements=False, x_transaction_log_flush_interval=1.0,
            init_timeout=_WANDB_SECONDS, finish_timeout=_WANDB_SECONDS, finish_timeout_raises=True,
        )  # fmt: skip
        known = {
            "project": os.environ.get("WANDB_PROJECT") or PROJECT,
            "name": run_name,
            "id": _remembered(folder, "wandb"),
            "dir": str(folder),
            "config": dict(settings),
            "resume": "allow",
            "settings": quiet,
        }
        why = _offline_because()
        with _unheard():
            if not why:
                try:
                    self._run = wandb.init(mode="online", **known)
                except Exception as error:  # noqa: BLE001 - whatever keeps it from its server
                    why = _said(error)
                    wandb.teardown()
            if why:
                self._run = wandb.init(mode="offline", **known)
        _remember(folder, "wandb", self._run.id)
        kept = Path(self._run.dir).parent
        if why:
            text = f"Weights & Biases is kept here ({why}); send it later: wandb sync {kept}"
            emit(Note(text, warning=True))
        else:
            emit(Note(f"Weights & Biases: {self._run.url}"))

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        with _unheard():
            self._run.finish()


class _Trackio:
    """A run in trackio's local store, or where TRACKIO_SPACE_ID or TRACKIO_SERVER_URL say."""

    def __init__(self, run_name: str, settings: Mapping[str, Any], *, resumed: bool) -> None:
        with _unheard():
            import trackio

            self._finish = trackio.finish
            self._run = trackio.init(
                PROJECT,
                name=run_name,
                config=dict(settings),
                resume="allow" if resumed else "never",
                embed=False,
                auto_log_gpu=False,
                auto_log_cpu=False,
            )

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        with _unheard():
            self._finish()  # the run's own would be called again at exit, aloud


def _offline_because() -> str:
    """Why Weights & Biases should not even try; empty where it may."""
    mode = os.environ.get("WANDB_MODE", "")
    if mode in ("offline", "dryrun", "disabled"):
        return f"WANDB_MODE is {mode}"
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return ""
    server = urlsplit(os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai").hostname
    try:
        found = netrc.netrc(os.environ.get("NETRC")).authenticators(server or "")
    except (OSError, netrc.NetrcParseError):
        found = None
    return "" if found else "no key: set WANDB_API_KEY, or wandb login"


@contextmanager
def _unheard() -> Iterator[None]:
    """What these libraries print, trackio even on standard output, is not for the user."""
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        yield


def _said(error: Exception) -> str:
    lines = harmless(str(error)).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _remember(folder: Path, name: str, value: str) -> None:
    path = folder / _STATE / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value, encoding="utf-8")


def _remembered(folder: Path, name: str) -> str | None:
    path = folder / _STATE / name
    return (path.read_text(encoding="utf-8") or None) if path.exists() else None


def _last_step(folder: Path) -> int:
    """The last that trackers were told of; -1 before any, or where a kill tore the note."""
    noted = _remembered(folder, "step") or ""
    return int(noted) if noted.isdecimal() else -1
