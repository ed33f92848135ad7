"""Every gate against the real llama.cpp and Ollama: all pass on the demo, and each can fail."""

import json
import shutil
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.check.gates import Gate, judge
from pipeline.check.subject import WHOLE, Subject
from pipeline.check.subjects import run_subject
from pipeline.check.table import PROBES
from pipeline.engines.ollama import OllamaServer
from pipeline.recipe import load
from pipeline.run import Run, describe, silent
from pipeline.run.files import sha256_of
from pipeline.workflow import Work
from pipeline.workflow.checks import part_of
from tests.e2e.conftest import NOBODY, Demo

pytestmark = pytest.mark.e2e

SPOILED = "check-spoiled"
PROMPT = "prompt text: Ollama"
COUNT = "token count: Ollama"


def gates_of(stdout: str) -> dict[str, dict[str, str]]:
    return {gate["name"]: gate for gate in json.loads(stdout)["gates"]}


def names(gates: Mapping[str, Mapping[str, str]], status: str) -> set[str]:
    return {name for name, gate in gates.items() if gate["status"] == status}


def test_every_gate_passes_against_the_real_server(demo: Demo) -> None:
    demo.pipe("check", "--require-all")
    results = demo.json("check/results.json")
    gates = {gate["name"]: gate for gate in results["gates"]}
    assert set(gates) == {probe.name for probe in PROBES}
    assert names(gates, "passed") == set(gates)
    assert "by its Go TEMPLATE" in gates[PROMPT]["compared"]
    assert "raw in Ollama 2" in gates["control tokens in text"]["compared"]
    assert "of 1024 tokens evaluated whole" in gates["context length"]["compared"]
    assert "by sha256" in gates["served file"]["compared"]
    assert sorted(results["precision"]) == ["Q4_K_M", "Q8_0", "adapter"]
    for cost in results["precision"].values():
        assert 0 < cost["kl"] < 2 * cost["baseline_kl"] and cost["same_top"] > 0.97
    assert not list(demo.run.root.glob(".check*"))
    assert demo.seconds["check"] < 100


def copied(demo: Demo, tmp_path: Path) -> Demo:
    """The demo in a folder of its own, whose files may be spoiled."""
    copy = Demo(tmp_path, demo.ollama)
    shutil.copytree(demo.run.root, copy.run.root)
    (tmp_path / "pipe.yaml").write_text("extends: demo\n")
    return copy


def work_in(demo: Demo) -> Work:
    return Work(load("demo").recipe, Run(demo.run.root), silent)


def test_a_file_that_was_not_merged_fails_and_what_needs_a_server_is_not_run(
    demo: Demo, tmp_path: Path
) -> None:
    copy = copied(demo, tmp_path)
    made = part_of(work_in(copy)).make(tmp_path, ("Q4_K_M",), tuned=False)
    export = copy.run.require("export")
    file = export.facts["files"]["Q4_K_M"]
    shutil.copyfile(made["Q4_K_M"], copy.run.folder("export") / file)
    outputs = {**export.outputs, file: describe(made["Q4_K_M"])}
    replace(export, outputs=outputs).write(copy.run.folder("export"))
    done = copy.pipe("check", "--json", ollama=NOBODY, code=1)
    gates = gates_of(done.stdout)
    assert names(gates, "failed") == {"merge", "quantization"}
    assert gates["merge"]["reason"].startswith("Q4_K_M: blk.0.")
    assert gates["quantization"]["reason"].startswith("Q4_K_M: KL 6")
    assert names(gates, "not_run") == {probe.name for probe in PROBES if "server" in probe.needs}
    assert "pipe register" in gates["thinks"]["hint"]


def test_any_model_of_the_server_and_any_file_can_be_checked(demo: Demo, tmp_path: Path) -> None:
    anywhere = Demo(tmp_path, demo.ollama)
    served = gates_of(anywhere.pipe("check", "--ollama", "my-model", "--json").stdout)
    assert names(served, "passed") == set(served)
    assert {PROMPT, COUNT, "one BOS", "greedy answers", "context length"} <= set(served)
    assert not {"merge", "served file", "prompt text: Transformers"} & set(served)
    file = demo.run.folder("export") / "my-model-Q4_K_M.gguf"
    alone = gates_of(anywhere.pipe("check", "--gguf", str(file), "--json").stdout)
    assert names(alone, "passed") == set(alone) and len(alone) == 5
    assert list(tmp_path.iterdir()) == []


Serving = Callable[..., Any]


@pytest.fixture
def serving(demo: Demo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Serving:
    """serving(file=None, **changes of the create request) gives the subject of a copied run."""
    monkeypatch.setenv("OLLAMA_HOST", demo.ollama)
    server = OllamaServer(demo.ollama)

    @contextmanager
    def made(file: Path | None = None, **changes: Any) -> Iterator[Subject]:
        copy = copied(demo, tmp_path)
        file = file or copy.run.folder("export") / "my-model-Q8_0.gguf"
        digest = f"sha256:{sha256_of(file)}"
        server.upload_blob(file, digest, lambda _: None)
        shown = server.show("my-model")
        parameters = {**copy.run.require("serve").facts["parameters"]}
        parameters |= changes.pop("parameters", {})
        request = {
            "model": SPOILED,
            "files": {file.name: digest},
            "template": shown["template"],
            "parameters": parameters,
        }
        server.create(request | changes, lambda _: None)
        serve = copy.run.require("serve")
        models = [{"name": SPOILED, "type": "Q8_0"}]
        replace(serve, facts={**serve.facts, "models": models}).write(copy.run.folder("serve"))
        subject = run_subject(part_of(work_in(copy)), tmp_path / "scratch")
        try:
            yield subject
        finally:
            subject.close()
            server.unload(SPOILED)
            server.delete(SPOILED)

    return made


def judged(subject: Subject, *wanted: str) -> dict[str, Gate]:
    return {probe.name: judge(probe, subject) for probe in PROBES if probe.name in wanted}


def statuses(subject: Subject, *wanted: str) -> dict[str, str]:
    return {name: gate.status for name, gate in judged(subject, *wanted).items()}


def template(demo: Demo, old: str, new: str) -> str:
    text = str(OllamaServer(demo.ollama).show("my-model")["template"])
    assert old in text
    return text.replace(old, new, 1)


def test_a_template_that_does_not_end_a_turn_fails(demo: Demo, serving: Serving) -> None:
    with serving(template=template(demo, "<|eot_id|>", "")) as subject:
        found = judged(subject, PROMPT, COUNT, "served file")
    assert {name: gate.status for name, gate in found.items()} == {
        PROMPT: "failed",
        COUNT: "failed",
        "served file": "passed",
    }
    assert "found" in found[PROMPT].reason and "pipe register --force" in found[PROMPT].hint


def test_a_template_with_a_second_bos_fails(demo: Demo, serving: Serving) -> None:
    begun = template(demo, "{{- range", "<|begin_of_text|>{{- range")
    with serving(template=begun) as subject:
        found = judged(subject, PROMPT, COUNT, "one BOS")
    assert {gate.status for gate in found.values()} == {"failed"}
    assert "BOS stands 2 times" in found["one BOS"].reason
    assert "evaluated" in found[COUNT].reason


def test_templates_without_thinking_fail(demo: Demo, serving: Serving, tmp_path: Path) -> None:
    """Neither the TEMPLATE nor the file's own, which Ollama would then take, knows of it."""
    start = "{{ if and $last .Thinking }}<think>\n{{ .Thinking }}\n</think>\n\n{{ end }}"
    source = demo.run.folder("export") / "my-model-Q8_0.gguf"
    plain = tmp_path / "plain.gguf"
    plain.write_bytes(source.read_bytes().replace(b"think>", b"thonk>"))
    with serving(plain, template=template(demo, start, "")) as subject:
        found = judged(subject, PROMPT, "thinks", "JSON after thinking")
    assert {gate.status for gate in found.values()} == {"failed"}
    assert "does not support thinking" in found[PROMPT].reason
    assert "Ollama does not know" in found["thinks"].reason


def test_a_context_that_was_cut_fails(serving: Serving) -> None:
    with serving(parameters={"num_ctx": 256}) as subject:
        gate = judged(subject, "context length")["context length"]
    assert gate.status == "failed"
    assert "exceeds the available context" in gate.reason or "evaluated" in gate.reason


def test_other_weights_under_the_name_fail(demo: Demo, serving: Serving) -> None:
    other = demo.run.folder("export") / "my-model-Q4_K_M.gguf"
    with serving(other) as subject:
        gate = judged(subject, "served file")["served file"]
    assert gate.status == "failed" and gate.reason.endswith("it is another file")


def unstoppable(source: Path, target: Path) -> Path:
    """The file with no token that llama.cpp could end on: by its name, or as eos and eot."""
    data = source.read_bytes()
    for name in (b"<|eot_id|>", b"<|eom_id|>", b"<|end_of_text|>"):
        token = struct.pack("<Q", len(name)) + name
        data = data.replace(token, token.replace(b"|e", b"|x"), 1)
    for kind in (b"eos", b"eot", b"eom"):
        key = b"tokenizer.ggml." + kind + b"_token_id"
        place = data.index(key) + len(key) + 4  # behind the value's type
        data = data[:place] + struct.pack("<I", 0) + data[place + 4 :]
    target.write_bytes(data)
    return target


def test_a_model_that_cannot_stop_fails(demo: Demo, serving: Serving, tmp_path: Path) -> None:
    source = demo.run.folder("export") / "my-model-Q8_0.gguf"
    with serving(unstoppable(source, tmp_path / "endless.gguf")) as subject:
        subject.questions, subject.limit = subject.questions[:WHOLE], 160
        gate = judged(subject, "stops")["stops"]
        subject.release()
        subject.files = {"Q8_0": tmp_path / "endless.gguf"}
        ends = judged(subject, "end tokens")["end tokens"]
    assert gate.status == "failed" and "does not end" in gate.reason
    assert ends.status == "failed"
