"""A finished run of the demo recipe whose files are a few bytes each: nothing is computed."""

import json
from dataclasses import asdict, replace
from pathlib import Path

from pipeline.plans import planned
from pipeline.recipe import Recipe
from pipeline.run import Run, Stage
from pipeline.run.folder import NEEDS
from pipeline.run.studies import SCHEMA

FILES: dict[Stage, dict[str, int]] = {
    "data": {"train.jsonl": 30, "test.jsonl": 20},
    "train": {"adapter/adapter_model.safetensors": 500, "adapter/adapter_config.json": 9,
              "metrics.jsonl": 40},
    "export": {"demo-Q8_0.gguf": 900, "demo-Q4_K_M.gguf": 400, "Modelfile": 12},
    "serve": {},
    "eval": {"results.json": 60},
}  # fmt: skip
"""Stage -> its files and their bytes."""
GGUFS = {"Q8_0": "demo-Q8_0.gguf", "Q4_K_M": "demo-Q4_K_M.gguf"}


def finished(root: Path, recipe: Recipe) -> Run:
    """Every stage but `check` is done; Ollama was given both files, the second as `demo:q4_k_m`."""
    run = Run(root)
    run.keep_recipe(recipe)
    for stage, files in FILES.items():
        publish(run, recipe, stage, files)
    return run


def publish(run: Run, recipe: Recipe, stage: Stage, files: dict[str, int]) -> None:
    inputs = {name: entry for need in NEEDS[stage] for name, entry in run.input_entry(need).items()}
    with run.publish(stage) as draft:
        for number, (name, size) in enumerate(files.items()):
            path = draft.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(bytes([number]) * size)
        plan = planned(stage, recipe, run)
        draft.manifest = replace(plan, inputs=inputs, facts=_facts(run, stage))


def unfinished_training(run: Run) -> Path:
    """A checkpoint of the training that `train/` came of."""
    made = run.require("train")
    folder = run.root / ".train.work" / "checkpoints" / "step-000010"
    folder.mkdir(parents=True)
    (folder / "weights").write_bytes(b"w" * 700)
    values = asdict(made)
    kept = {key: values[key] for key in ("section", "inputs", "chat_format", "seed", "schema")}
    pins = run.root / ".train.work" / "pins.json"
    pins.write_text(json.dumps({"work": kept, "versions": {}}))
    return pins


def compared(run: Run, recipe: Recipe, labels: list[str], best: str | None) -> list[Run]:
    """Finished variants below `compare/`, and the results that name the best of them."""
    found = [finished(run.root / "compare" / "runs" / label, recipe) for label in labels]
    rows = [{"label": label, "status": "done"} for label in labels]
    results = {"schema": SCHEMA, "inputs": {}, "best": best, "variants": rows}
    (run.root / "compare" / "results.json").write_text(json.dumps(results))
    return found


def _facts(run: Run, stage: Stage) -> dict[str, object]:
    if stage == "export":
        return {"files": GGUFS}
    if stage != "serve":
        return {}
    outputs = run.require("export").outputs
    names = {"Q8_0": "demo", "Q4_K_M": "demo:q4_k_m"}
    digests = {type: f"sha256:{outputs[file].sha256}" for type, file in GGUFS.items()}
    models = [{"name": names[t], "type": t, "digest": d, "served": d} for t, d in digests.items()]
    return {"models": models}
