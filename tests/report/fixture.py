"""A finished run as the stages leave it, of a few kilobytes, with figures that tests know."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pipeline.recipe import dump, load
from pipeline.run import Entry, Manifest, Run
from pipeline.run.files import write_json
from pipeline.run.folder import Draft
from tests.report.figures import compared, gates, metrics
from tests.report.trained import ALOUD, MEASURED, SPEEDS

ENGINES = ("base", "adapter", "merged", "Q8_0", "Q4_K_M", "ollama")
RIGHT = {"base": 0.048, "adapter": 0.84, "merged": 0.832, "Q8_0": 0.832, "Q4_K_M": 0.796}
EDGES = [0, 64, 128, 256, 512, 1024, 1536, 2048, 3072, 4096]
FORMAT = {"name": "llama3.2-reasoning", "sha256": "49" * 32}
HOSTILE = (
    '</pre><script>fetch("http://evil.example")</script>\x1b[2J\u202egnol\x00 \ud800 <img src=x>'
)


class Made:
    """Writes one stage after the other; `without` names those to leave out."""

    def __init__(self, root: Path, **changes: Any) -> None:
        self.run = Run(root)
        self.changes = changes
        self.engines = list(changes.get("engines", ENGINES))
        self.items = changes.get("items", 40)
        overrides = changes.get("overrides", ())
        self.recipe = load("demo", [f"name={root.name}", *overrides]).recipe
        root.mkdir(parents=True, exist_ok=True)
        (root / "recipe.yaml").write_text(dump(self.recipe), encoding="utf-8")

    def right(self, engine: str) -> float:
        """The share of its answers that are right."""
        return float((RIGHT | self.changes.get("right", {})).get(engine, 0.832))

    def publish(self, stage: Any, files: Mapping[str, Any], **known: Any) -> None:
        needs = {"train": ("data",), "export": ("train",), "serve": ("export",)}
        needs |= {"check": ("export",), "eval": ("data", "train", "export"), "data": ()}
        inputs: dict[str, Entry] = {}
        for need in needs[stage]:
            inputs |= self.run.input_entry(need)  # type: ignore[arg-type]
        with self.run.publish(stage) as draft:
            for name, content in files.items():
                _write(draft, name, content)
            known = {"section": {}, "chat_format": FORMAT, "seed": 3407} | known
            draft.manifest = Manifest(stage=stage, inputs=inputs, **known)


def write_run(root: Path, *, without: Iterable[str] = (), **changes: Any) -> Run:
    """A run at `root`. `changes`: engines, items, samples, gates, answer (a text for all), losses,
    measured, speeds, aloud and general (losses) of the training, overrides of the recipe, right
    (engine -> share of right answers), rejects, speed, precision, scores (for every engine), scored
    (engine -> more of them), each (engine -> more metrics of each answer), grad_norm, duties,
    license, tasks, asked (task -> facts) and answers beside ours."""
    made = Made(root, **changes)
    steps = {"data": _data, "train": _train, "export": _export, "serve": _serve}
    for stage, write in (steps | {"check": _check, "eval": _eval}).items():
        if stage not in without:
            write(made)
    return made.run


def _write(draft: Draft, name: str, content: Any) -> None:
    path = draft.folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, list):
        # escaped, as other writers do: a lone surrogate comes through JSON alone
        path.write_text("".join(f"{json.dumps(line)}\n" for line in content), encoding="ascii")
    else:
        write_json(path, content)


def _data(made: Made) -> None:
    rejects = made.changes.get("rejects", {"too_long": 61, "duplicate_question": 27})
    lengths = {"edges": EDGES, "rows": [244, 2406, 180, 61, 9, 0, 0, 0, 0, 0]}
    lengths["longer_than"] = {"2048": 0.0}  # type: ignore[assignment]
    tokens = {"p5": 56, "p50": 101, "p95": 105, "max": 498, "sum": 227484}
    source = {
        "dataset": "open-r1/OpenR1-Math-220k",
        "config": "default",
        "records": 2400 + sum(rejects.values()),
        "rows": 2400,
        "left_out": 0,
        "rejects": rejects,
        "lengths": lengths,
    }
    own = {"dataset": "rows/test.jsonl", "config": None, "records": made.items, "left_out": 0}
    own |= {"rows": made.items, "rejects": {}, "lengths": lengths}
    stats = {
        "lengths": lengths,
        "rows": {"train": 2362, "eval": 38, "test": made.items, "rejects": sum(rejects.values())},
        "sources": [source, own],
        "tokens": {"train": tokens, "eval": None, "test": tokens},
        "supervised_tokens": {"train": 125245, "eval": 2057},
    }
    known = {"licence": "apache-2.0", "duties": made.changes.get("duties", []), "rows": 2400}
    fact = {"dataset": source["dataset"], "config": "default", "revision": "e4e141ec"} | known
    made.publish(
        "data",
        {"stats.json": stats, "test.jsonl": [_row(number) for number in range(made.items)]},
        counts={"train": 2362, "eval": 38, "test": made.items},
        section={"model": {"max_seq_length": 512}},
        facts={
            "base": {"name": "builtin:tiny-llama", "revision": None},
            "sources": [fact],
            "test": {"dataset": "rows/test.jsonl", "rows": made.items, "sha256": "7b" * 32},
        },
        versions={"datasets": "4.8.5"},
    )


def _row(number: int) -> dict[str, Any]:
    return {
        "id": f"test_{number}",
        "source": "stories",
        "system": None,
        "question": f"Dan owns {90 + number} cards & sells 5. How many cards does Dan have now?",
        "reasoning": None,
        "answer": f"Dan has {85 + number} cards.",
        "reference": str(85 + number),
    }


def _train(made: Made) -> None:
    losses = made.changes.get("losses", [6.1 * 0.7**step + 0.03 for step in range(19)])
    steps = [
        {
            "step": 10 * number or 1,
            "steps": 180,
            "loss": loss,
            "grad_norm": made.changes.get("grad_norm", 2.2 / (number + 1)),
            "learning_rate": 2e-3 * (1 - number / len(losses)),
            "tokens": 1000 * number,
        }
        for number, loss in enumerate(losses)
    ]
    facts = {"device": "cpu", "precision": "fp32", "eval_loss": 0.0311}
    facts |= {"method": made.recipe.train.method}
    facts |= {"trainable_parameters": 393216, "total_parameters": 2328320}
    in_full = made.recipe.train.method == "full"
    weights = "model/model.safetensors" if in_full else "adapter/adapter_model.safetensors"
    facts |= made.changes.get("general", {"general_loss_before": 2.1, "general_loss_after": 2.15})
    log = {"seconds": {"train": 44.4, "load": 0.7}, "peak_memory_bytes": {"resident": 1235714048}}
    made.publish(
        "train",
        {
            "metrics.jsonl": steps + made.changes.get("measured", MEASURED),
            "speed.jsonl": made.changes.get("speeds", SPEEDS),
            "samples.jsonl": made.changes.get("aloud", ALOUD),
            "training_log.json": log,
            weights: b"weights",
        },
        counts={"steps": 180},
        facts=facts,
        section={"train": made.recipe.train.model_dump(mode="json")},
        versions={"torch": "2.14.1"},
    )


def _export(made: Made) -> None:
    kinds = list(made.recipe.export.quantize)
    names = {kind: f"my-model-{kind}.gguf" for kind in kinds}
    files = {names[kind]: bytes(2000 - 700 * place) for place, kind in enumerate(kinds)}
    made.publish(
        "export",
        files,
        facts={"files": names, "license": made.changes.get("license", "apache-2.0")},
        section=made.recipe.model_dump(mode="json", include={"export", "serve"}),
    )


def _serve(made: Made) -> None:
    made.publish("serve", {}, facts={"models": [{"name": "my-model", "type": "Q8_0"}]})


def _check(made: Made) -> None:
    precision = {
        "Q8_0": {"kl": 3.1e-4, "same_top": 0.996, "baseline_kl": 4e-4, "baseline_same_top": 0.99},
        "Q4_K_M": {"kl": 0.021, "same_top": 0.96, "baseline_kl": 0.033, "baseline_same_top": 0.94},
    }
    precision |= made.changes.get("precision", {})
    results = {"gates": made.changes.get("gates", gates()), "precision": precision}
    made.publish("check", {"results.json": results})


def _eval(made: Made) -> None:
    more = made.changes.get("scores", {})
    own = made.changes.get("scored", {})
    scores = {
        engine: metrics(engine, made.right(engine)) | more | own.get(engine, {})
        for engine in made.engines
    }
    task = {
        "items": made.items,
        "samples": made.changes.get("samples", 1),
        "decoding": {"temperature": 0.0, "max_new_tokens": 160},
        "engines": scores,
        "comparisons": [*made.changes.get("tested", ()), *_comparisons(made.engines)],
    }
    same = {"first_token_s": 0.05, "seconds": 20.0, "load_s": 1.0, "memory_bytes": 5e7}
    speed: dict[str, Any] = {
        engine: {"tokens_per_s": 400.0 + 90 * place} | same
        for place, engine in enumerate(made.engines)
    }
    files = {
        "results.json": task | {"tasks": made.changes.get("tasks", {})},
        "answers.jsonl": [*_answers(made), *made.changes.get("answers", ())],
    }
    if made.changes.get("speed", True):
        files["speed.json"] = {"test": speed}
    section = {"eval": made.recipe.eval.model_dump(mode="json"), "engines": made.engines}
    section |= {"method": made.recipe.train.method}
    asked = {"test": {"dataset": "test"}} | made.changes.get("asked", {})
    made.publish("eval", files, section=section, facts={"tasks": asked})


def _comparisons(engines: list[str]) -> list[dict[str, Any]]:
    made = [
        compared("exact_match", "base", "adapter", 0.792, 1e-40),
        compared("well_formed", "base", "adapter", 0.996, 1e-50),
        compared("exact_match", "adapter", "Q8_0", -0.008, 0.73),
        compared("exact_match", "adapter", "Q4_K_M", -0.044, 0.031),
    ]
    return [each for each in made if {each["from"], each["to"]} <= set(engines)]


def _answers(made: Made) -> list[dict[str, Any]]:
    return [
        _answer(made, engine, number, sample, number < made.items * made.right(engine))
        for engine in made.engines
        for number in range(made.items)
        for sample in range(made.changes.get("samples", 1))
    ]


def _answer(made: Made, engine: str, number: int, sample: int, right: bool) -> dict[str, Any]:
    said = f"Dan has {85 + number if right else 80 - number} cards."
    thinking = f"<think>\nDan sells 5: {90 + number}-5={85 + number}\n</think>\n\n"
    text = said if engine == "base" else thinking + said
    return {
        "task": "test",
        "engine": engine,
        "id": f"test_{number}",
        "sample": sample,
        "text": made.changes.get("answer", text),
        "stopped": True,
        "tokens": 58,
        "metrics": {"exact_match": int(right)} | made.changes.get("each", {}).get(engine, {}),
    }
