"""The importance matrix: what each column of a weight matrix counts for, on the run's own rows."""

import os
import re
import signal
import subprocess
import sysconfig
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.chat import Encoder
from pipeline.cores import cores
from pipeline.engines.gguf_file import GgufFile, TensorInfo, read_gguf
from pipeline.engines.llamacpp import REBUILD
from pipeline.errors import NativeCrash, PipeError
from pipeline.gguf.mix import Shape
from pipeline.run import Emit, Progress, Run
from pipeline.run.files import sync_file

_PROGRAM = "llama-imatrix"
_ROWS = "training-rows.txt"
_SUMS, _COUNTS = ".in_sum2", ".counts"
_KEYS = ("imatrix.datasets", "imatrix.chunk_count", "imatrix.chunk_size")
_AGAIN = f"Collect it again: {_PROGRAM}, or pipe export --imatrix train"
_GOLDEN = 0.6180339887
_TOTAL = re.compile(r"computing over (\d+) chunks")
_CHUNK = re.compile(r"\[(\d+)\]([-\w.]+),")


@dataclass(frozen=True)
class Importance:
    """Mean squares of what each column is multiplied with, over the tokens of a text."""

    path: Path
    entries: Mapping[str, npt.NDArray[np.float32]]
    """GGUF tensor name -> F32 [columns]."""
    datasets: tuple[str, ...]
    chunks: int
    context: int
    """Tokens a chunk."""

    def check_fit(self, tensors: Sequence[Shape]) -> None:
        """Raises PipeError where this was not collected on a model of these tensors.

        llama-quantize itself stops for another count of columns only; it passes over an entry of
        no tensor, and quantizes a tensor that has none without importance.
        """
        columns = {shape.name: shape.columns for shape in tensors}
        for name, values in self.entries.items():
            if columns.get(name) != len(values):
                has = columns.get(name, "no")
                raise self._foreign(f"{len(values)} values for {name}, which has {has} columns")
        for shape in tensors:
            if shape.rows > 1 and shape.name.startswith("blk.") and shape.name not in self.entries:
                raise self._foreign(f"nothing for {shape.name}")

    def metadata(self) -> dict[str, str | int]:
        """What a file quantized with this says of it (tools/quantize); integers are u32.

        Of paths it says only the last part: folders are nobody else's business.
        """
        about: dict[str, str | int] = {"quantize.imatrix.file": self.path.name}
        # a Windows path may have either slash
        if dataset := PureWindowsPath(next(iter(self.datasets), "")).name:
            about["quantize.imatrix.dataset"] = dataset
        about["quantize.imatrix.entries_count"] = len(self.entries)
        about["quantize.imatrix.chunks_count"] = self.chunks
        return about

    def _foreign(self, what: str) -> PipeError:
        return PipeError(
            f"The importance matrix {self.path} holds {what}.",
            "It was collected on another model: collect it on this one.",
        )


def read_importance(path: Path) -> Importance:
    """An importance matrix in llama-imatrix's GGUF format, as llama-quantize reads it.

    Sums over the tokens become means (load_imatrix in tools/quantize, common_imatrix_load).
    Raises PipeError for a file that is torn or none, or that holds NaN or infinity.
    """
    _check_format(path)
    file = read_gguf(path, _AGAIN)
    tensors = {info.name: info for info in file.tensors}
    names = sorted(name.removesuffix(_SUMS) for name in tensors if name.endswith(_SUMS))
    if not names or any(key not in file.metadata for key in _KEYS):
        raise PipeError(f"{path} is a GGUF file that holds no importance matrix.", _AGAIN)
    data = np.memmap(path, np.uint8, "r")
    entries = {}
    for name in names:
        sums, counts = tensors[name + _SUMS], tensors.get(name + _COUNTS)
        if counts is None or {sums.type, counts.type} != {"F32"}:
            raise PipeError(f"{path} holds no F32 sums and counts for {name}.", _AGAIN)
        entries[name] = _means(path, name, _f32(data, sums), _f32(data, counts))
    return _importance(file, entries)


class Text(NamedTuple):
    """A training row as text, control tokens spelled out."""

    text: str
    tokens: int
    """That llama.cpp makes of it behind the rows before, its BOS included."""


def training_text(run: Run, encoder: Encoder, tokens: int, seed: int) -> Iterator[Text]:
    """Training rows of together at least `tokens` tokens, control tokens spelled out.

    Whole rows, spread evenly over all of them; fewer tokens where the rows have no more. Joined
    with nothing between, they tokenize to the ids that training read: a row in whose content a
    control token is spelled out would not, and is passed over.
    """
    import pyarrow

    path = run.folder("data") / "encoded" / "train.arrow"
    rows = pyarrow.ipc.open_stream(pyarrow.memory_map(str(path))).read_all()["input_ids"]
    taken = 0
    for number in _spread(len(rows), seed):
        if taken >= tokens:
            return
        ids: list[int] = rows[number].as_py()
        text = encoder.text_of(ids)
        if encoder.whole(text) == ids:
            taken += len(ids)
            yield Text(text, len(ids))


def collect_importance(
    model: Path, texts: Iterable[Text], out: Path, *, context: int, chunks: int, emit: Emit
) -> Importance:
    """Run llama-imatrix on a 16-bit or Q8_0 GGUF and write `out`.

    The texts are joined with nothing between and control tokens in them are parsed; then at most
    `chunks` pieces of `context` tokens go through the model, the first token of each replaced by
    BOS where the model wants one. The same text gives the same bytes for any number of threads.
    Raises PipeError where the texts have fewer than two contexts of tokens.
    """
    header = read_gguf(model)
    with tempfile.TemporaryDirectory(prefix=".importance-", dir=out.parent) as folder:
        work = Path(folder)
        tokens = _write_texts(work / _ROWS, texts, _bos(header))
        # llama-imatrix would say so too, where its log is not lost with its end
        if tokens < 2 * context:
            raise PipeError(
                f"The training rows have {tokens} tokens; an importance matrix needs at least "
                f"{2 * context} tokens, two contexts.",
                "A shorter context needs fewer: --set export.importance.context=32",
            )
        arguments = ["-m", str(model.resolve()), "-f", _ROWS, "-o", out.name, "--parse-special"]
        # a batch of one chunk: the logits of more would take a gigabyte
        arguments += ["-c", str(context), "-b", str(context), "--chunks", str(chunks)]
        _run(arguments, work, emit)
        read_importance(work / out.name)
        sync_file(work / out.name)
        (work / out.name).replace(out)
    return read_importance(out)


def _check_format(path: Path) -> None:
    if not path.is_file():
        raise PipeError(f"There is no importance matrix {path}.")
    with path.open("rb") as file:
        magic = file.read(4)
    if magic != b"GGUF":
        raise PipeError(
            f"{path} is no GGUF file.",
            f"Of the old format? {_PROGRAM} --in-file {path.name} -o importance.gguf converts it.",
        )


def _f32(data: npt.NDArray[np.uint8], info: TensorInfo) -> npt.NDArray[np.float32]:
    return data[info.offset : info.offset + info.bytes].view(np.float32).astype(np.float32)


def _means(
    path: Path, name: str, sums: npt.NDArray[np.float32], counts: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """Sum / count in fp32; 1 for all where nothing was counted, as llama-quantize has it."""
    if len(counts) != 1:
        raise PipeError(f"{path} counts {len(counts)} experts in {name}: that model is no Llama.")
    if not (np.isfinite(sums).all() and np.isfinite(counts).all()):
        raise PipeError(f"{path} holds NaN or infinity for {name}.", _AGAIN)
    count = np.rint(counts)[0]
    means: npt.NDArray[np.float32] = sums / count if count > 0 else np.ones_like(sums)
    return means


def _importance(file: GgufFile, entries: Mapping[str, npt.NDArray[np.float32]]) -> Importance:
    datasets, chunks, context = (file.metadata[key] for key in _KEYS)
    named = isinstance(datasets, list) and all(isinstance(name, str) for name in datasets)
    for key, fits in zip(_KEYS, (named, _is_u32(chunks), _is_u32(context)), strict=True):
        if not fits:
            raise PipeError(f"{file.path} has no usable {key}.", _AGAIN)
    return Importance(file.path, entries, tuple(datasets), chunks, context)


def _is_u32(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 32


def _spread(rows: int, seed: int) -> Iterator[int]:
    """Every number below `rows` once; however few are taken, they lie evenly over all.

    Multiples of the golden ratio whose fractions are below a bound follow one another in at most
    three distances (Slater's three-gap theorem).
    """
    return iter(sorted(range(rows), key=lambda number: (seed + number) * _GOLDEN % 1))


def _bos(header: GgufFile) -> str:
    """The token that llama.cpp itself puts before a text, or nothing."""
    key = header.metadata.get("tokenizer.ggml.bos_token_id")
    if key is None or not header.metadata.get("tokenizer.ggml.add_bos_token", True):
        return ""
    return str(header.metadata["tokenizer.ggml.tokens"][key])


def _write_texts(path: Path, texts: Iterable[Text], bos: str) -> int:
    """Returns how many tokens they are."""
    tokens = 0
    with path.open("w", encoding="utf-8", newline="") as file:
        for number, (text, count) in enumerate(texts):
            file.write(text if number else text.removeprefix(bos))
            tokens += count
    return tokens


def _run(arguments: Sequence[str], folder: Path, emit: Emit) -> None:
    """The program to its end. Raises PipeError with what it said last."""
    threads = str(cores())
    # --fit would shorten the context where memory is short
    fixed = ["-t", threads, "--fit", "off", "--offline", "--log-colors", "off", "--no-log-prefix"]
    with subprocess.Popen(
        [_program(), *arguments, *fixed],
        cwd=folder,
        env=_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        try:
            said = _followed(process, emit)
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        raise _failure(process.returncode, said)


def _followed(process: "subprocess.Popen[bytes]", emit: Emit) -> str:
    """All that it said; a chunk done is said as `[3]12.5,`, with the perplexity so far."""
    assert process.stdout
    said, done, read = "", 0, 0
    while piece := os.read(process.stdout.fileno(), 4096):
        said += piece.decode("utf-8", "replace")
        total = _TOTAL.search(said)
        for found in _CHUNK.finditer(said, read):
            read = found.end()
            if total and int(found[1]) > done:
                done, figures = int(found[1]), {"perplexity": found[2]}
                emit(Progress("importance", done, int(total[1]), "chunks", figures))
    return said


def _failure(code: int, said: str) -> PipeError:
    tail = "\n".join([line for line in said.splitlines() if line.strip()][-3:])
    if code < 0:
        return NativeCrash(f"{_PROGRAM} died with {signal.Signals(-code).name}.\n{tail}", REBUILD)
    why = tail or f"it ended with exit code {code} and said nothing."
    return PipeError(f"{_PROGRAM} could not collect the importance matrix:\n{why}")


def _program() -> Path:
    """llama-imatrix as it came with llama-cpp-python. Raises PipeError where it did not."""
    program = Path(sysconfig.get_path("platlib")) / "bin" / _PROGRAM
    if not program.exists():
        raise PipeError(
            f"{_PROGRAM} is not installed: this llama-cpp-python was built without the programs.",
            "Build it with them: CMAKE_ARGS='-DLLAMA_BUILD_TOOLS=ON -DLLAMA_TOOLS_INSTALL=ON "
            "-DLLAMA_BUILD_APP=OFF -DGGML_NATIVE=OFF' pip install --force-reinstall "
            "--no-cache-dir --no-binary llama-cpp-python llama-cpp-python",
        )
    return program


def _environment() -> dict[str, str]:
    """Without the variables that llama.cpp takes arguments from; it finds its libraries by one."""
    libraries = str(Path(sysconfig.get_path("platlib")) / "lib")
    kept = {key: value for key, value in os.environ.items() if not key.startswith("LLAMA_")}
    # threads that spin at a barrier made it six times slower beside another process
    return {"OMP_WAIT_POLICY": "passive"} | kept | {"LD_LIBRARY_PATH": libraries}
