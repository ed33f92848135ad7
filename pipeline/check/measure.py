"""Divergence of one model's next-token distributions from another's, on held-out replies."""

import math
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from pipeline.chat import Encoded, exchange_of
from pipeline.check.part import RunPart
from pipeline.engines.completion import Scorer
from pipeline.engines.divergence import divergence
from pipeline.engines.llamacpp import LlamaCppEngine
from pipeline.engines.loading import Bits, Variant
from pipeline.engines.transformers import TransformersEngine, open_trained
from pipeline.errors import PipeError
from pipeline.run import Note, versions_of
from pipeline.run.files import explained_writes, sha256_of_json

WIDE = "BF16"
"""The type of the files that quantized ones are held against."""
NARROW: Mapping[str, Bits] = {"NF4": 4, "INT8": 8}
"""The base in 4 or 8 bits, as an adapter may be trained on it."""
SAME = "transformers"
"""The base in 16 bits by Transformers: what the change of engine alone costs."""
_BYTES = 1 << 30
_ROWS = 20
_IMPORTANCE = "importance.gguf"
"""The matrix that the export collected."""
_FILES = 3
"""Log-probabilities held on disk at once: the merged model's, the base's, and one other's."""


class Closing(Scorer, Protocol):
    def close(self) -> None: ...


@dataclass(frozen=True)
class Cost:
    """Mean KL divergence in nats from a reference, and the share of equal likeliest tokens."""

    kl: float
    same_top: float

    @property
    def finite(self) -> bool:
        """False where a model's predictions hold NaN, or rule out what the reference does not."""
        return math.isfinite(self.kl) and math.isfinite(self.same_top)

    def within(self, most: "Cost") -> bool:
        """NaN is within nothing."""
        return self.kl <= most.kl and self.same_top >= most.same_top

    def or_wider(self, other: "Cost") -> "Cost":
        return Cost(max(self.kl, other.kl), min(self.same_top, other.same_top))


@dataclass
class Measures:
    """Divergences of a run's models, each measured once; its files lie in `folder`."""

    part: RunPart
    files: Mapping[str, Path]
    """Type -> exported GGUF."""
    open_file: Callable[[Path], LlamaCppEngine]
    n_ctx: int
    folder: Path
    """Removed with everything in it by `close`."""
    known: Mapping[str, Any]
    """The baseline that the check before this one kept."""
    precision: dict[str, dict[str, float | None]] = field(default_factory=dict)
    """Model -> its cost beside the base's own, for the report; None for what is not finite."""
    _adapter: TransformersEngine | None = field(default=None, init=False)
    _vocabulary: int = field(default=0, init=False)

    @cached_property
    def costs(self) -> dict[str, Cost]:
        """What narrowing the base alone costs, by type; what was kept still holds by its key."""
        if self.known.get("key") != self.key:
            return {}
        return {name: Cost(**cost) for name, cost in self.known["costs"].items()}

    def tuned(self, model: str) -> Cost:
        """What a model of the run diverges from the merged one in 16 bits by llama.cpp.

        It is an exported type, `adapter` (as trained) or `merged` (by Transformers, as is a model
        that was trained in full). Raises PipeError where the disk is too full or a model cannot be
        loaded.
        """
        reference = self._merged
        with self._opened(model) as engine:
            return self._cost(engine, reference)

    def baseline(self, type: str) -> Cost:
        """What the base in this type diverges from the base in 16 bits, by llama.cpp both."""
        if type not in self.costs:
            reference = self._base
            if type == SAME or type in NARROW:
                engine: Closing = self._transformers("base", NARROW.get(type, 16))
            else:
                engine = self.open_file(self._base_files[type])
            with _closing(engine):
                self.costs[type] = self._cost(engine, reference)
        return self.costs[type]

    def kept(self) -> dict[str, Any]:
        """The baseline, for the next check; the one known, where none was asked for."""
        if "costs" not in self.__dict__:
            return dict(self.known)
        costs = {name: vars(c) for name, c in sorted(self.costs.items()) if c.finite}
        return {"key": self.key, "costs": costs}

    @cached_property
    def key(self) -> str:
        """Of all that the baseline depends on."""
        export = self.part.run.require("export")
        inputs = {n: e.sha256 for n, e in export.inputs.items() if not n.startswith("train/")}
        if collected := export.outputs.get(_IMPORTANCE):
            inputs[_IMPORTANCE] = collected.sha256
        asked = self.part.recipe.export.model_dump(mode="json")
        versions = versions_of("gguf", "llama-cpp-python", "torch", "transformers", "bitsandbytes")
        ids = [(s.ids, s.target_start) for s in self.sequences]
        device = self.part.trained.device
        return sha256_of_json([inputs, asked, versions, ids, device])

    @cached_property
    def sequences(self) -> list[Encoded]:
        """Of each held-out reply what is scored, as much as the disk is asked to hold."""
        vocabulary = int(self.part.base.config["vocab_size"])
        return windows(self._replies, _BYTES // (_FILES * vocabulary * 4))

    @cached_property
    def _replies(self) -> list[Encoded]:
        """Held-out rows with their own replies, whole."""
        rows = self.part.rows[:_ROWS]
        encoded = self.part.encoder.examples([exchange_of(row) for row in rows])
        whole = [each for each in encoded if each is not None and len(each.ids) < self.n_ctx]
        if not whole:
            raise PipeError(
                "No held-out row fits the context with its reply.", "Raise serve.num_ctx."
            )
        return whole

    @property
    def looked_at(self) -> str:
        """Which tokens of which replies are compared."""
        said = f"{self.positions:,} tokens of {len(self.sequences)} replies"
        cut = [each for each in self.sequences if each not in self._replies]
        if not cut:
            return f"{said}, whole"
        most = max(len(each.ids) - each.target_start for each in cut)
        return f"{said}: of {len(cut)} the first, middle or last {most} in turn, of others all"

    @property
    def positions(self) -> int:
        return sum(len(each.ids) - each.target_start for each in self.sequences)

    @property
    def adapter(self) -> TransformersEngine:
        """The adapter on the base as it was trained, held open until it is closed."""
        if self._adapter is None:
            self._adapter = self._transformers("adapter", self.part.trained.bits)
        return self._adapter

    def close_adapter(self) -> None:
        if self._adapter is not None:
            self._adapter.close()
        self._adapter = None

    def close(self) -> None:
        self.close_adapter()
        shutil.rmtree(self.folder, ignore_errors=True)

    @cached_property
    def _merged(self) -> Path:
        """Log-probabilities of the merged model in 16 bits, by llama.cpp."""
        if WIDE in self.files:
            return self._reference(self.files[WIDE], "merged")
        self._say_disk((WIDE,))
        file = self.part.make(self._new("merged"), (WIDE,), tuned=True)[WIDE]
        return self._reference(file, "merged")

    @cached_property
    def _base(self) -> Path:
        return self._reference(self._base_files[WIDE], "base")

    @cached_property
    def _base_files(self) -> Mapping[str, Path]:
        types = tuple(dict.fromkeys((*self.files, WIDE)))
        self._say_disk(types)
        return self.part.make(self._new("base"), types, tuned=False)

    def _reference(self, file: Path, name: str) -> Path:
        engine = self.open_file(file)
        kept = self.folder / f"{name}.logits"
        with _closing(engine), explained_writes(kept.name):
            self._vocabulary = int(engine.facts()["n_vocab"])
            engine.score(self.sequences, kept)
        return kept

    def _cost(self, engine: Scorer, reference: Path) -> Cost:
        candidate = self.folder / "candidate.logits"
        try:
            with explained_writes(candidate.name):
                engine.score(self.sequences, candidate)
            found = divergence(reference, candidate, self._vocabulary)
        finally:
            candidate.unlink(missing_ok=True)
        return Cost(found.mean, found.same_top_share)

    @contextmanager
    def _opened(self, model: str) -> Iterator[Scorer]:
        if model == "adapter":
            try:
                yield self.adapter
            finally:
                self.close_adapter()
            return
        self.close_adapter()
        engine: Closing = (
            self._transformers("merged", 16)
            if model == "merged"
            else self.open_file(self.files[model])
        )
        with _closing(engine):
            yield engine

    def _transformers(self, variant: Variant, bits: Bits) -> TransformersEngine:
        part = self.part
        return open_trained(variant, part.trained, part.encoder, bits=bits, batch_size=4)

    def _new(self, name: str) -> Path:
        folder = self.folder / name
        folder.mkdir(parents=True)
        return folder

    def _say_disk(self, types: Sequence[str]) -> None:
        """What is about to be written, where it is enough to matter."""
        wide = sum(shard.stat().st_size for shard in self.part.base.shards())
        sizes = {type: path.stat().st_size for type, path in self.files.items()} | {WIDE: wide}
        kept = _FILES * self.positions * int(self.part.base.config["vocab_size"]) * 4
        needed = sum(sizes[type] for type in types) + kept
        if needed > _BYTES // 10:
            where = f"{needed / 1e9:.1f} GB in {self.folder} until the check ends"
            self.part.emit(Note(f"Precision: {', '.join(types)} take about {where}."))


def windows(sequences: Sequence[Encoded], most: int) -> list[Encoded]:
    """The sequences with at most `most` supervised tokens in all: of a long reply one stretch.

    Each may have an equal share of what those before it left over, the shortest reply first. Of
    replies that are longer the first, the middle and the last tokens are taken in turn, with all
    that stands before them.
    """
    left, cut, kept = most, 0, dict[int, Encoded]()
    targets = [len(each.ids) - each.target_start for each in sequences]
    order = sorted(range(len(sequences)), key=targets.__getitem__)
    for done, number in enumerate(order):
        each = sequences[number]
        width = min(left // (len(order) - done), targets[number])
        left -= width
        spare = targets[number] - width
        start = each.target_start + spare * (cut % 3) // 2
        cut += spare > 0 < width
        if width:
            kept[number] = Encoded(each.ids[: start + width], start)
    return [kept[number] for number in sorted(kept)]


@contextmanager
def _closing(engine: Closing) -> Iterator[None]:
    try:
        yield
    finally:
        engine.close()
