"""One exported file becomes one model: sent, created, read back, asked."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

from pipeline.engines.ollama import OllamaServer, full_name, model_blob
from pipeline.errors import PipeError
from pipeline.run import Emit, Note, Progress
from pipeline.serve.blobs import HASHED, UNREAD, hash_of, stored
from pipeline.serve.keep import kept
from pipeline.serve.names import spare_name
from pipeline.serve.pulse import pulse
from pipeline.serve.readback import UNCOMPARED, Job, ask, check_shown, weights_of

_UPLOAD_EVENTS_S = 0.25


@dataclass(frozen=True)
class Maker:
    """Makes models on one server, one after the other."""

    server: OllamaServer
    emit: Emit
    force: bool = False
    """Remove a damaged file of the server, with the models of these names that run on it."""
    proven: Mapping[str, str] = field(default_factory=dict)
    """Name -> digest that it ran on when it was last registered whole."""

    def make_all(self, jobs: Sequence[Job]) -> list[dict[str, Any]]:
        """What the manifest says of each model. A failure says which of them stand."""
        ours = [name for job in jobs for name in (job.name, spare_name(job.name))]
        names = frozenset(map(full_name, ours))
        made: list[dict[str, Any]] = []
        for job in jobs:
            try:
                made.append(self._make(job, names))
            except PipeError as error:
                raise type(error)(f"{error.message}{_standing(made)}", error.hint) from error
            except KeyboardInterrupt:
                self.emit(Note(f"Interrupted at {job.name}.{_standing(made)}", warning=True))
                raise
        return made

    def _make(self, job: Job, names: frozenset[str]) -> dict[str, Any]:
        blob = self._deliver(job, names)
        with kept(self.server, job.name, self.emit, self.proven.get(job.name, "")):
            steps = self._create(job)
            self.server.unload(job.name)
            shown = self.server.show(job.name)
            if blob == UNREAD:
                blob = self._looked_at(job, shown)
            weights = weights_of(self.server, job, shown, steps)
            check_shown(job, shown, weights)
            if weights == UNCOMPARED:
                self.emit(Note(f"The weights of {job.name} were {weights} from here.", True))
            with pulse(self.emit, f"ask {job.name}", "replies"):
                asked = ask(self.server, job, self.emit)
        return {
            "name": job.name,
            "type": job.type,
            "digest": job.digest,
            "served": model_blob(shown)[1],
            "weights": weights,
            "blob": blob,
            "capabilities": sorted(shown["capabilities"]),
            "asked": asked,
        }

    def _deliver(self, job: Job, names: frozenset[str]) -> str:
        """How the file came to the server."""
        if self.server.has_blob(job.digest):
            if found := stored(self.server, job.digest, names, self.force):
                return found
            self.emit(Note(f"A damaged file is removed, with {job.name}, which ran on it.", True))
        self.server.upload_blob(job.file, job.digest, _upload_progress(job, self.emit))
        return "uploaded"

    def _create(self, job: Job) -> list[str]:
        """The server's status lines."""
        steps: list[str] = []
        with pulse(self.emit, f"create {job.name}", "steps") as say:

            def on_status(status: str) -> None:
                steps.append(status)
                say(status)

            self.server.create(job.request, on_status)
        return steps

    def _looked_at(self, job: Job, shown: dict[str, Any]) -> str:
        """Hash a file whose place only the new model tells. A damaged one goes with the model."""
        path, digest = model_blob(shown)
        found = hash_of(Path(path))
        if found is None:
            return UNREAD
        if found != digest:
            self.server.delete(job.name)
            raise PipeError(
                f"The file that Ollama had for {job.name} was damaged, and is removed.",
                "Send it again: pipe register",
            )
        return HASHED


def _standing(made: Sequence[dict[str, Any]]) -> str:
    names = ", ".join(model["name"] for model in made)
    return f" Registered before that, whole: {names}." if made else ""


def _upload_progress(job: Job, emit: Emit) -> Callable[[int], None]:
    started = last = monotonic()
    total = job.file.stat().st_size

    def progress(sent: int) -> None:
        nonlocal last
        now = monotonic()
        if sent < total and now - last < _UPLOAD_EVENTS_S:
            return
        last = now
        rate = sent / max(now - started, 1e-6) / 1e6
        emit(Progress(f"upload {job.file.name}", sent, total, "B", {"rate": f"{rate:.0f} MB/s"}))

    return progress
