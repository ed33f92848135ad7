"""Someone to talk to, and the untuned base beside them."""

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.chat import ASSUMED, chat_format
from pipeline.cores import cores
from pipeline.errors import ChangedInput, MissingInput
from pipeline.run import Manifest, Note
from pipeline.run.files import explained_writes, sha256_of_json
from pipeline.workflow.work import Work

if TYPE_CHECKING:
    from pipeline.engines.talk import Partner


BASES = ".base"
"""In the run's folder: untuned bases as GGUF files, made to be talked to beside the tuned one."""


@dataclass(frozen=True)
class Wish:
    """Whom to talk to: by default the first file that the run exported."""

    ollama: str | None = None
    """A model by its name in Ollama; "" is this run's own."""
    gguf: Path | None = None
    """Any file, no run needed."""
    type: str | None = None
    """Which of the exported types."""

    @property
    def is_run(self) -> bool:
        return self.gguf is None and not self.ollama


@contextmanager
def talking(work: Work, wish: Wish) -> "Iterator[Partner]":
    """The partner that is wished for, closed at the end. Raises PipeError where there is none."""
    partner = _open(work, wish)
    try:
        yield partner
    finally:
        partner.close()


@contextmanager
def side_by_side(work: Work, wish: Wish, *, base: bool = True) -> "Iterator[dict[str, Partner]]":
    """The `base` in the type of the tuned file, if wanted, and the `tuned` model.

    The base of a model that no run made is not known: then `tuned` is alone, and this is said.
    """
    if base and not wish.is_run:
        work.emit(Note("Only a run knows its base: the tuned model answers alone."))
    paired = base and wish.is_run
    # as many threads as cores for both together: those that wait for others spin
    threads = max(1, cores() // 2) if paired else None
    with ExitStack() as opened:
        sides: dict[str, Partner] = {}
        if paired:
            type = _type(work, wish)
            _file(work, type)  # before the base is made, which may take minutes
            name = f"{work.base().title} {type}"
            sides["base"] = _file_partner(work, base_gguf(work, type), threads, name)
            opened.callback(sides["base"].close)
        sides["tuned"] = _open(work, wish, threads)
        opened.callback(sides["tuned"].close)
        yield sides


def base_gguf(work: Work, type: str) -> Path:
    """The untuned base as a GGUF of that type, made once and kept in the run's `.base/`.

    It is named by what it was made of, so that another base is never taken for it. It has the
    types of the tuned file's tensors, and no importance matrix.
    """
    exported = work.run.require("export", complete=False)
    base = work.base()
    path = work.run.root / BASES / f"{base.title}-{type}-{_key(work, exported, type)}.gguf"
    if not path.exists():
        exported.check_inputs(base.entries(), "Export this base again: pipe export --force")
        work.emit(Note(f"Making the untuned base as {type}, once, to compare with."))
        with work.run.lock(), explained_writes(str(path.parent)):
            _make_base(work, type, path)
        work.emit(Note(f"{path}: {path.stat().st_size / 1e6:,.1f} MB, kept for the next time."))
    return path


def _open(work: Work, wish: Wish, threads: int | None = None) -> "Partner":
    if wish.gguf is not None:
        return _any_file(work, wish.gguf)
    if wish.ollama is not None:
        return _served(work, wish)
    return _file_partner(work, _file(work, _type(work, wish)), threads)


def _type(work: Work, wish: Wish) -> str:
    """The type wished for, else the first one exported."""
    work.needs("data", "train", "export")
    wanted = (wish.type or work.recipe.export.quantize[0]).upper()
    files = work.run.require("export", complete=False).facts["files"]
    if wanted not in files:
        there = ", ".join(type for type in files if type != "adapter")
        raise MissingInput(
            f"{work.run.folder('export')} holds no {wanted}; it holds {there}.",
            f"Make it: pipe export --quantize {wanted}",
        )
    return wanted


def _file(work: Work, type: str) -> Path:
    """Raises FreedInput where `pipe clean` freed it."""
    name = work.run.require("export", complete=False).facts["files"][type]
    work.run.check_there("export", [name])
    return work.run.folder("export") / str(name)


def _file_partner(work: Work, file: Path, threads: int | None, name: str = "") -> "Partner":
    from pipeline.engines.talk_file import FilePartner, RunPrompter

    return FilePartner(
        file,
        RunPrompter(work.encoder()),
        n_ctx=work.recipe.num_ctx,
        sampling=_sampling(work),
        threads=threads,
        name=name,
    )


def _any_file(work: Work, file: Path) -> "Partner":
    """A file outside any run, asked by its own template and with its own sampling."""
    from pipeline.engines.gguf_file import read_gguf
    from pipeline.engines.talk_file import LARGEST_CONTEXT, FilePartner, TemplatePrompter

    header = read_gguf(file, "Name a GGUF file: pipe chat --gguf FILE")
    values = header.metadata
    trained = values.get(f"{values.get('general.architecture')}.context_length")
    length = trained if isinstance(trained, int) and trained > 0 else LARGEST_CONTEXT
    return FilePartner(
        file,
        TemplatePrompter(header, ASSUMED),
        n_ctx=min(length, LARGEST_CONTEXT),
        sampling=_sampling(work) | _own_sampling(work, values),
    )


def _own_sampling(work: Work, values: Mapping[str, Any]) -> dict[str, float]:
    """What a header says of sampling; what is no sensible number is said and left out."""
    bounds = {"temp": (0.0, 10.0), "top_p": (0.0, 1.0), "penalty_repeat": (0.1, 10.0)}
    ours = {"temp": "temperature", "top_p": "top_p", "penalty_repeat": "repeat_penalty"}
    known: dict[str, float] = {}
    for key, (least, most) in bounds.items():
        value = values.get(f"general.sampling.{key}")
        if isinstance(value, int | float) and least <= value <= most:
            known[ours[key]] = float(value)
        elif value is not None:
            work.emit(Note(f"The file's general.sampling.{key} is not used: {value!r}.", True))
    return known


def _served(work: Work, wish: Wish) -> "Partner":
    from pipeline.engines.ollama import OllamaServer, model_blob
    from pipeline.engines.talk_served import ServedPartner

    server = OllamaServer.from_environment()
    if wish.ollama:
        return ServedPartner(server, wish.ollama, ASSUMED)
    model = _registered(work, wish)
    name = str(model["name"])
    partner = ServedPartner(
        server, name, chat_format(work.recipe.chat.format, thinks=work.recipe.chat.thinking)
    )
    _, digest = model_blob(server.show(name))
    if digest != (model.get("served") or model["digest"]):
        raise ChangedInput(
            f"{name} in Ollama is another file now than the one that this run registered.",
            "Put this run's in its place: pipe register. As it is: pipe chat --ollama " + name,
        )
    return partner


def _registered(work: Work, wish: Wish) -> dict[str, Any]:
    """What the run's manifest says of its model: of the type wished for, else of the first."""
    work.needs("data", "train", "export", "serve")
    models = {model["type"]: model for model in work.run.require("serve").facts["models"]}
    wanted = _type(work, wish) if wish.type else next(iter(models))
    if wanted not in models:
        raise MissingInput(
            f"This run's {wanted} is not in Ollama; registered are {', '.join(models)}.",
            "Talk to the file: leave out --ollama",
        )
    return dict(models[wanted])


def _sampling(work: Work) -> dict[str, float]:
    serve = work.recipe.serve
    return {
        "temperature": serve.temperature,
        "top_p": serve.top_p,
        "repeat_penalty": serve.repeat_penalty,
    }


def _key(work: Work, exported: Manifest, type: str) -> str:
    """Twelve hex digits of the base's hashes and of everything else that the file is made by."""
    base = {name: asdict(e) for name, e in exported.inputs.items() if name.startswith("base/")}
    format = chat_format(work.recipe.chat.format, thinks=work.recipe.chat.thinking).fingerprint()
    made_by = [base, type, work.recipe.export.tensor_types, format, exported.versions]
    return sha256_of_json(made_by)[:12]


def _make_base(work: Work, type: str, path: Path) -> None:
    """Write the file whole or not at all; what was made of another base goes."""
    from pipeline.gguf.export import write_types
    from pipeline.gguf.job import Job
    from pipeline.serve import license_text

    base = work.base()
    asked = work.recipe.export.model_copy(
        update={"quantize": (type,), "importance": None, "adapter_gguf": False}
    )
    format = chat_format(work.recipe.chat.format, thinks=work.recipe.chat.thinking)
    license = license_text(work.recipe, base.folder)
    job = Job(base.title, base, None, format, asked, license)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=".draft-", dir=path.parent))
    try:
        made = draft / write_types(job, draft, work.emit).files[type]
        for old in path.parent.glob(f"*-{type}-*.gguf"):
            old.unlink()
        made.rename(path)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
