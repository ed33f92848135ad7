"""Runs each contender of scripts/bench_prepare.py on the same rows and keeps what it did."""

import json
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

from bench_measure import Watched, seen_of, watch
from bench_rows import write

SCRIPTS = Path(__file__).parent.resolve()
MAX_LENGTH = 16384
"""Tokens, beyond the longest row: nothing is cut or dropped for its length."""
WARM_ROWS = 60
"""Of an unmeasured run before each: it leaves the bytecode that an installation has."""
BATCH = 256
"""Rows that a worker process gets at once, as in pipeline.data.read.chunks."""


@dataclass(frozen=True)
class Outcome:
    """What one contender did."""

    name: str
    seconds: float
    whole_seconds: float
    """Of its process, with all that does not count."""
    peak_mib: float
    whole_peak_mib: float
    apart: dict[str, float]
    """Seconds of what does not count."""
    tokens: int
    examples: dict[str, str]
    """Fingerprint of ids and labels by row id."""
    rejected: dict[str, str] | None = None
    """Reason by row id, where the contender drops rows."""

    def figures(self, rows: int, text_bytes: int) -> dict[str, Any]:
        """Rows and text are what goes in, tokens what comes out."""
        figures = {
            "seconds": round(self.seconds, 2),
            "rows_per_second": round(rows / self.seconds, 1),
            "mb_per_second": round(text_bytes / 1e6 / self.seconds, 2),
            "tokens_per_second": round(self.tokens / self.seconds),
            "peak_mib": self.peak_mib,
            "whole_process": {"seconds": round(self.whole_seconds, 2)},
            "tokens": self.tokens,
        }
        figures["whole_process"]["peak_mib"] = self.whole_peak_mib
        figures["apart"] = self.apart
        return figures


@dataclass(frozen=True)
class Bench:
    """The rows, in the forms that the contenders read, and a folder for what they leave."""

    folder: Path
    rows: int
    tokenizer: Path
    text_bytes: int
    """UTF-8 of all questions, reasonings and answers."""

    @classmethod
    def made(cls, folder: Path, rows: int, tokenizer: Path) -> "Bench":
        write(folder, rows)
        texts = list(_texts(folder / "rows.jsonl"))
        _write_tables(folder, texts)
        _write_tables(folder / "warm", texts[:WARM_ROWS])
        size = sum(len(row[key].encode()) for row in texts for key in row if key != "id")
        base = folder / "base"
        base.mkdir()
        shutil.copy(tokenizer, base / "tokenizer.json")
        (base / "config.json").write_text('{"model_type": "llama"}', encoding="utf-8")
        return cls(folder, rows, base / "tokenizer.json", size)

    def facts(self) -> dict[str, Any]:
        """What the rows are, so that two runs can be told to be of the same ones."""
        content = (self.folder / "rows.jsonl").read_bytes()
        return {
            "rows": self.rows,
            "text_mb": round(self.text_bytes / 1e6, 1),
            "jsonl_sha256": sha256(content).hexdigest(),
        }

    def outcome(self, name: str) -> Outcome | str:
        """Run the contender of that name; the reason where its encoder is not proven equal."""
        out, warm = self.folder / name, self.folder / "warm" / name
        out.mkdir()
        warm.mkdir()
        if name.startswith("prepare"):
            return self._prepare(name, out, warm)
        watch(self._command(name, warm), warm, self._environment)
        watched = watch(self._command(name, out), out, self._environment)
        if (unproven := out / "unproven.txt").exists():
            return unproven.read_text(encoding="utf-8")
        result = json.loads((out / "result.json").read_text(encoding="utf-8"))
        # gigabytes, of TRL's; they would be written back while the next one works
        shutil.rmtree(out / "cache", ignore_errors=True)
        return _outcome(name, watched, result)

    def _command(self, name: str, out: Path) -> list[str]:
        """A script on the rows that lie beside `out`."""
        rows, script = out.parent, [sys.executable, str(SCRIPTS / "bench_trl.py")]
        common = ["--tokenizer", str(self.tokenizer), "--out", str(out)]
        if name.startswith("encode"):
            script = [sys.executable, str(SCRIPTS / "bench_encode.py")]
            backend = ["--backend", name.removeprefix("encode_")]
            return [*script, "--rows", str(rows / "rows.arrow"), *backend, *common]
        processes = ["--processes", "2"] if name == "trl_2" else []
        common += ["--rows", str(rows / "rows.parquet"), "--max-length", str(MAX_LENGTH)]
        return [*script, *processes, *common]

    def _prepare(self, name: str, out: Path, warm: Path) -> Outcome:
        verify = name == "prepare_verify"
        self._run_prepare(warm, verify, WARM_ROWS)
        watched = self._run_prepare(out, verify, self.rows)
        data = out / "runs" / "bench" / "data"
        seconds = watched.end - watched.begin
        peak = watched.peak_mib(watched.begin, watched.end)
        examples, tokens = _prepared(data)
        rejected = {record["id"]: record["reason"] for record in _records(data / "rejects.jsonl")}
        return Outcome(name, seconds, seconds, peak, peak, {}, tokens, examples, rejected)

    def _run_prepare(self, out: Path, verify: bool, limit: int) -> Watched:
        recipe = out / "recipe.yaml"
        recipe.write_text(json.dumps(self._recipe), encoding="utf-8")
        command = [str(Path(sys.executable).with_name("pipe")), "prepare", "-r", str(recipe)]
        command += ["--run", "bench", "--set", f"data.filters.verify={str(verify).lower()}"]
        command += ["--set", f"data.sources.0.limit={limit}"]
        return watch(command, out, self._environment)

    @cached_property
    def _recipe(self) -> dict[str, Any]:
        columns = {
            "question": "problem",
            "reply": "reannotated_assistant_content",
            "reference": "solution",
            "id": "id",
            "source": "source",
        }
        benchmark = {"dataset": str(self.folder / "benchmark.jsonl"), "question": "question"}
        return {
            "name": "bench",
            "model": {"base": str(self.tokenizer.parent), "max_seq_length": MAX_LENGTH},
            "data": {
                "sources": [{"dataset": str(self.folder / "rows.jsonl"), "columns": columns}],
                "test": {"dataset": str(self.folder / "test.jsonl"), "columns": columns},
                "filters": {"languages": ["en"], "min_reasoning_words": 20},
                "decontaminate": [benchmark],
                "no_thinking_share": 0,
            },
        }

    @property
    def _environment(self) -> dict[str, str]:
        own = {
            "HF_HUB_OFFLINE": "1",
            "HF_HOME": str(self.folder / "hub"),
            "CUDA_VISIBLE_DEVICES": "",
            "PYTHONPYCACHEPREFIX": str(self.folder / "bytecode"),
            "PYTHONDONTWRITEBYTECODE": "",
        }
        return os.environ | own


def _outcome(name: str, watched: Watched, result: dict[str, Any]) -> Outcome:
    begin, end = result["begin"], result["end"]
    return Outcome(
        name,
        end - begin,
        watched.end - watched.begin,
        watched.peak_mib(begin, end),
        watched.peak_mib(watched.begin, watched.end),
        result["apart"],
        result["tokens"],
        result["rows"],
    )


def _prepared(data: Path) -> tuple[dict[str, str], int]:
    """Fingerprints by row id, and tokens, of the examples that prepare left."""
    examples: dict[str, str] = {}
    tokens = 0
    for split in ("train", "eval"):
        names = [record["id"] for record in _records(data / f"{split}.jsonl")]
        seen = seen_of(data / "encoded" / f"{split}.arrow", names)
        examples |= seen.rows
        tokens += seen.tokens
    return examples, tokens


def _texts(path: Path) -> Iterator[dict[str, str]]:
    """What every contender encodes: the row's parts with nothing around them."""
    for record in _records(path):
        reply = record["reannotated_assistant_content"].removeprefix("<think>")
        reasoning, _, answer = reply.partition("</think>")
        parts = {"question": record["problem"], "reasoning": reasoning, "answer": answer}
        yield {"id": record["id"]} | {name: text.strip() for name, text in parts.items()}


def _write_tables(folder: Path, texts: list[dict[str, str]]) -> None:
    """rows.parquet for TRL, rows.arrow for this package's encoder."""
    import pyarrow
    from pyarrow import parquet

    folder.mkdir(exist_ok=True)
    table = pyarrow.Table.from_pylist(texts)
    parquet.write_table(table, folder / "rows.parquet")
    with pyarrow.ipc.new_file(str(folder / "rows.arrow"), table.schema) as file:
        file.write_table(table, max_chunksize=BATCH)


def _records(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        yield from map(json.loads, file)
