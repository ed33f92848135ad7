"""Runs that can be published, with few bytes in them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pipeline.chat import chat_format
from pipeline.plans import planned
from pipeline.recipe import Recipe, load
from pipeline.run import Run
from pipeline.run.files import write_json

COMMIT = "a" * 40
SAMPLES: dict[str, Any] = {"dataset": "builtin:samples/train.jsonl", "rows": 2400}
BOUND: dict[str, Any] = {
    "dataset": "ServiceNow-AI/R1-Distill-SFT",
    "config": "v0",
    "revision": COMMIT,
    "rows": 12345,
    "licence": "cc-by-nc-sa-4.0",
    "duties": ["non-commercial", "share-alike"],
}
FREE: dict[str, Any] = {
    "dataset": "open-r1/OpenR1-Math-220k",
    "config": "default",
    "revision": COMMIT,
    "rows": 500,
    "licence": "apache-2.0",
    "duties": [],
}
LLAMA = "meta-llama/Llama-3.2-3B-Instruct"


def value(figure: float) -> dict[str, float]:
    return {"value": figure, "low": figure - 0.05, "high": figure + 0.05}


RESULTS: dict[str, Any] = {
    "items": 250,
    "samples": 1,
    "engines": {
        "Q8_0": {"exact_match": value(0.83)},
        "adapter": {"exact_match": value(0.84), "cross_entropy": value(0.5)},
        "base": {"exact_match": value(0.05), "cross_entropy": value(6.5)},
        "endpoint": {"exact_match": value(0.99)},
    },
    "comparisons": [
        {
            "metric": "exact_match",
            "from": "base",
            "to": "adapter",
            "change": value(0.79),
            "p_value": 1e-9,
            "test": "McNemar, exact",
        }
    ],
    "tasks": {},
}


class Maker:
    """Fills a run stage by stage, as `pipe` does, for the recipe that pipe.yaml holds."""

    def __init__(self, recipe: str | Path = "pipe.yaml", run: str | None = None) -> None:
        self.recipe: Recipe = load(str(recipe)).recipe
        self.run = Run.of(self.recipe, run)

    def whole(
        self,
        sources: Sequence[Mapping[str, Any]] = (SAMPLES,),
        *,
        base_revision: str | None = None,
        license: str = "apache-2.0",
    ) -> "Maker":
        """data, train and export."""
        self.data(sources, base_revision)
        self.train(base_revision)
        self.export(license)
        return self

    def data(self, sources: Sequence[Mapping[str, Any]], base_revision: str | None) -> None:
        base = {"name": self.recipe.model.base, "revision": base_revision}
        facts = {"base": base, "sources": list(sources), "test": None, "decontaminate": []}
        self._publish("data", {"train.jsonl": b"{}\n"}, facts)

    def train(self, base_revision: str | None = None) -> None:
        config = {
            "base_model_name_or_path": self.recipe.model.base,
            "peft_type": "LORA",
            "revision": base_revision,
        }
        files = {
            "adapter/adapter_config.json": json.dumps(config).encode(),
            "adapter/adapter_model.safetensors": b"weights" * 99,
            "adapter/tokenizer_config.json": b'{"is_local": true, "pad_token": "x"}',
            "adapter/tokenizer.json": b"{}",
            "adapter/training_args.bin": b"a pickle",
            "metrics.jsonl": b"{}\n",
        }
        if self.recipe.train.method == "full":
            files = {"model/config.json": b"{}", "model/model.safetensors": b"weights" * 99}
        facts = {
            "method": self.recipe.train.method,
            "device": "cpu",
            "precision": "fp32",
            "trainable_parameters": 1000,
            "total_parameters": 5000,
            "final_loss": 0.5,
        }
        self._publish("train", files, facts, counts={"steps": 180})

    def export(self, license: str) -> None:
        name = self.recipe.serve.name
        names = {kind: f"{name}-{kind}.gguf" for kind in self.recipe.export.quantize}
        files = {file: f"GGUF {kind} ".encode() * 99 for kind, file in names.items()}
        for number, (kind, file) in enumerate(names.items()):
            text = f'FROM ./{file}\nTEMPLATE """x"""\n'
            files["Modelfile" if number == 0 else f"Modelfile.{kind}"] = text.encode()
        files |= {"README.md": b"the export's own", "importance.gguf": b"no model"}
        template = chat_format(self.recipe.chat.format).ollama_template
        facts = {"files": names, "license": license, "template": template}
        self._publish("export", files, facts)

    def check(self, *statuses: str) -> None:
        gates = [
            {"name": f"gate {number}", "status": status, "reason": "/home/alice/x"}
            for number, status in enumerate(statuses)
        ]
        self._publish("check", {"results.json": json.dumps({"gates": gates}).encode()}, {})

    def evaluate(self, results: Mapping[str, Any] = RESULTS) -> None:
        found = {"engines": ["base", "adapter", "Q8_0", "endpoint"]}
        facts = {"tasks": {"test": {"dataset": "test"}}}
        self._publish("eval", {"results.json": json.dumps(results).encode()}, facts, found)

    def _publish(
        self,
        stage: Any,
        files: Mapping[str, bytes],
        facts: Mapping[str, Any],
        found: Mapping[str, Any] = MappingProxyType({}),
        counts: Mapping[str, int] = MappingProxyType({}),
    ) -> None:
        """`found` is what the manifest says to have been obeyed beside the recipe."""
        from pipeline.run.folder import NEEDS

        inputs: dict[str, Any] = {}
        for need in NEEDS[stage]:
            inputs |= self.run.input_entry(need)
        with self.run.publish(stage) as draft:
            for name, content in files.items():
                path = draft.folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            plan = planned(stage, self.recipe, self.run)
            section = {**plan.section, **found}
            draft.manifest = replace(
                plan, section=section, inputs=inputs, facts=dict(facts), counts=dict(counts)
            )


def write_recipe(folder: Path, **changes: Any) -> None:
    """pipe.yaml: the demo with other sections."""
    write_json(folder / "pipe.yaml", {"extends": "demo", **changes})
