"""What the GGUF files of one export share, what each asks for, and how they come to be."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.gguf.header import Metadata
from pipeline.gguf.importance import Importance
from pipeline.gguf.job import Job
from pipeline.gguf.kernels.lanes import must_compile
from pipeline.gguf.merged import Merged
from pipeline.gguf.mix import FILE_TYPES, Facts, Override, choose_types, fallbacks
from pipeline.gguf.models import (
    ControlTokens,
    Description,
    License,
    Origin,
    Vocabulary,
    describe,
    name_parts,
    own_chat_template,
    own_sampling,
    size_label,
)
from pipeline.gguf.output import Output, finish
from pipeline.gguf.stream import stream
from pipeline.run import Emit, Note, Progress
from pipeline.run.disk import require_space


@dataclass(frozen=True)
class Asked:
    """One file: where, of which llama_ftype, and which tensors get another type."""

    path: Path
    type: str
    overrides: Sequence[Override] = ()


class Source:
    """The merged model with all that its files say about it.

    Raises PipeError for a model, a tokenizer or an adapter that is not exported.
    """

    def __init__(self, job: Job, emit: Emit) -> None:
        self.merged = Merged.open(job.base, job.adapter)
        self.model = self.merged.model
        folder = _tokenizer_folder(job)
        vocabulary = Vocabulary.read(folder, self.model.vocab)
        self.description = _description(job, folder, self.merged.parameters)
        if self.description.chat_template is None:
            emit(Note(f"{folder} has no chat template: neither have the files.", warning=True))
        # most of a header, and the same in all files
        self._vocabulary = self._metadata(
            vocabulary.add_to, _control(job, folder, vocabulary).add_to
        ).without(self._metadata())

    def output(self, asked: Asked, importance: Importance | None) -> Output:
        """The file that is asked for, not yet made. Raises RecipeError for a type it cannot be."""
        about = importance.metadata() if importance else None
        own = self._metadata(
            lambda to: describe(to, self.description, FILE_TYPES[asked.type], about),
            self.model.add_to,
        )
        return Output(asked.path, own + self._vocabulary, self.merged.weights, self._types(asked))

    def fallbacks(self, asked: Asked, types: Mapping[str, str]) -> int:
        """How many tensors have rows that do not fill the blocks of the wanted type."""
        return fallbacks(asked.type, self.merged.shapes(), types, asked.overrides)

    def _types(self, asked: Asked) -> dict[str, str]:
        model = self.model
        facts = Facts(model.gguf_name, model.layers, model.heads, model.kv_heads)
        return choose_types(asked.type, self.merged.shapes(), facts, asked.overrides)

    def _metadata(self, *parts: Callable[[Any], None]) -> Metadata:
        return Metadata.of(self.model.gguf_name, *parts)


def write_files(
    source: Source, asked: Sequence[Asked], importance: Importance | None, emit: Emit
) -> dict[str, dict[str, int]]:
    """Write every file in one pass over the base; all take their names once all are verified.

    Returns how many tensors of each type each file has. Raises PipeError where the disk is too
    full, before any work.
    """
    outputs = [source.output(each, importance) for each in asked]
    check_space(outputs)
    for each, output in zip(asked, outputs, strict=True):
        if count := source.fallbacks(each, output.types):
            emit(Note(f"{each.type}: {count} tensors fill no blocks of it and get a wider type."))
    if must_compile():
        emit(Note("Compiling the kernels, once on this machine: some seconds for each type."))
    names = {"types": " ".join(each.type for each in asked)}
    with ExitStack() as stack:
        for output in outputs:
            stack.enter_context(output)
        stream(
            source.merged,
            outputs,
            importance.entries if importance else {},
            lambda done, total: emit(Progress("quantize", done, total, "weights", names)),
        )
        finish(outputs)
    return {e.type: dict(Counter(o.types.values())) for e, o in zip(asked, outputs, strict=True)}


def check_space(outputs: Sequence[Output]) -> None:
    """Raises PipeError where the disk cannot hold them all."""
    needed = sum(output.bytes for output in outputs)
    cure = "Make room, or export fewer types: --quantize Q4_K_M"
    require_space(outputs[0].path.parent, needed, "Export", cure)


def _tokenizer_folder(job: Job) -> Path:
    """Where the tokenizer is: beside the adapter where one was saved with it, tokens added."""
    files = ("tokenizer.json", "tokenizer_config.json")
    if job.adapter and all((job.adapter / name).is_file() for name in files):
        return job.adapter
    return job.base.folder


def _control(job: Job, folder: Path, vocabulary: Vocabulary) -> ControlTokens:
    if job.format is None:
        return ControlTokens.of_folder(vocabulary, folder)
    format = job.format
    return ControlTokens.of_format(
        vocabulary, bos=format.bos, end_of_turn=format.end_of_turn, pad=format.pad
    )


def _description(job: Job, tokenizer: Path, parameters: int) -> Description:
    basename, finetune = name_parts(job.base.title)
    if job.format is None:
        template = own_chat_template(tokenizer) or own_chat_template(job.base.folder)
    else:
        template = job.format.jinja
    return Description(
        name=job.name,
        license=License.of(job.license),
        size_label=size_label(parameters),
        chat_template=template,
        base=Origin.of_model(job.base.name if job.base.revision else job.base.title),
        datasets=[Origin.of_dataset(name) for name in job.datasets],
        basename=basename,
        finetune=finetune,
        sampling=job.sampling if job.format else own_sampling(job.base.folder),
    )
