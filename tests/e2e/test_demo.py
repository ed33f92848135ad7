"""The main job: rows in, a thinking model answering in Ollama out, and it learned."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from ollama import Client

from pipeline.answers import exact_match
from pipeline.engines.gguf_file import read_gguf
from pipeline.engines.ollama import OllamaServer
from pipeline.run.rows import read_jsonl
from tests.e2e.conftest import NOBODY, Demo
from tests.support.ollama import environment, ollama_binary

pytestmark = pytest.mark.e2e


def questions(demo: Demo) -> list[dict[str, str]]:
    return list(read_jsonl(demo.run.folder("data") / "test.jsonl"))


def test_the_adapter_learned_and_the_files_kept_it(demo: Demo) -> None:
    results = demo.json("eval/results.json")
    scores = results["engines"]
    assert results["items"] == 250
    assert sorted(scores) == ["Q4_K_M", "Q8_0", "adapter", "base", "merged", "ollama"]
    match = {name: score["exact_match"] for name, score in scores.items()}
    adapter = match["adapter"]["value"]
    assert adapter - match["base"]["value"] >= 0.30
    assert match["adapter"]["low"] > match["base"]["high"]
    assert scores["adapter"]["well_formed"]["value"] >= 0.95
    assert abs(match["merged"]["value"] - adapter) <= 0.05
    assert abs(match["Q8_0"]["value"] - adapter) <= 0.05
    assert abs(match["Q4_K_M"]["value"] - adapter) <= 0.15
    assert abs(match["ollama"]["value"] - match["Q8_0"]["value"]) <= 0.02
    perplexity = {
        name: score["perplexity"]["value"] for name, score in scores.items() if name != "ollama"
    }
    assert perplexity["base"] > 100 and perplexity["adapter"] < 1.1
    for name in ("merged", "Q8_0", "Q4_K_M"):
        assert perplexity[name] == pytest.approx(perplexity["adapter"], rel=0.02)
    gain = results["comparisons"][0]
    assert (gain["from"], gain["to"], gain["metric"]) == ("base", "adapter", "exact_match")
    assert gain["p_value"] < 1e-4 and gain["change"]["low"] > 0.3
    costs = [each for each in results["comparisons"] if each["metric"] == "exact_match"][1:]
    assert [each["to"] for each in costs] == ["merged", "Q8_0", "Q4_K_M", "ollama"]
    speed = demo.json("eval/speed.json")["test"]
    assert sorted(speed) == sorted(scores)
    assert all(each["tokens_per_s"] > 0 and each["first_token_s"] > 0 for each in speed.values())


def test_ollama_run_thinks_and_answers(demo: Demo, ollama_home: Path) -> None:
    server = OllamaServer(demo.ollama)
    question = questions(demo)[0]
    done = subprocess.run(
        [ollama_binary(), "run", "my-model", question["question"]],
        env=environment(ollama_home, server),
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    thinking, _, answer = done.stdout.partition("...done thinking.")
    assert thinking.startswith("Thinking...") and len(thinking) > 40
    assert answer.strip() and "<think>" not in done.stdout


def test_any_client_gets_thinking_apart_from_the_answer(demo: Demo) -> None:
    client = Client(demo.ollama)
    right = 0
    for row in questions(demo)[:10]:
        messages = [{"role": "user", "content": row["question"]}]
        reply = client.chat("my-model", messages=messages, options={"temperature": 0})
        assert reply.done_reason == "stop"
        assert reply.message.thinking and reply.message.content
        right += exact_match(reply.message.content, row["answer"])
        direct = client.chat("my-model", messages=messages, think=False, options={"temperature": 0})
        assert direct.done_reason == "stop" and not direct.message.thinking
        assert direct.message.content and "think>" not in direct.message.content
    assert right >= 7


def test_every_stage_is_done_and_nothing_is_done_twice(demo: Demo) -> None:
    done = demo.pipe("run", ollama=NOBODY, code=0)
    for stage in ("train", "export"):
        assert f"{stage} is up to date." in done.stderr
    assert "Not registered" in done.stderr and "pipe register" in done.stderr
    states = demo.pipe("status").stdout
    assert "stale" not in states and "changed" not in states


def test_the_modelfile_is_one_that_ollama_create_takes(demo: Demo, ollama_home: Path) -> None:
    server = OllamaServer(demo.ollama)
    subprocess.run(
        [ollama_binary(), "create", "by-hand", "-f", "Modelfile"],
        cwd=demo.run.folder("export"),
        env=environment(ollama_home, server),
        capture_output=True,
        check=True,
    )
    ours, theirs = server.show("my-model"), server.show("by-hand")
    assert ours["template"] == theirs["template"]
    assert sorted(ours["parameters"].split("\n")) == sorted(theirs["parameters"].split("\n"))
    server.delete("by-hand")


def test_the_exported_file_says_what_it_is(demo: Demo) -> None:
    metadata = read_gguf(demo.run.folder("export") / "my-model-Q4_K_M.gguf").metadata
    assert metadata["general.architecture"] == "llama"
    assert metadata["general.base_model.0.name"] == "Tiny Llama"
    assert metadata["tokenizer.ggml.pre"] == "llama-bpe"
    assert "tool" not in metadata["tokenizer.chat_template"]


def test_the_report_holds_every_engine_and_fetches_nothing(demo: Demo) -> None:
    demo.pipe("report")
    page = (demo.run.root / "report.html").read_text()
    for name in ("base", "adapter", "merged", "Q8_0", "Q4_K_M", "ollama"):
        assert re.search(rf'<th scope="row">{name}\b', page), name
    assert "http:" not in page and "https:" not in page


def test_the_training_log_has_its_figures(demo: Demo) -> None:
    log = demo.json("train/training_log.json")
    assert log["facts"]["trainable_parameters"] > 0
    assert log["facts"]["load_in_4bit"] and log["facts"]["device"] == "cpu"
    assert log["final_loss"] < 0.5 and log["eval_loss"] < 0.5
    assert {"load", "train"} == set(log["seconds"]) and log["peak_memory_bytes"]["resident"] > 0
    text = (demo.run.folder("train") / "training_log.txt").read_text()
    assert "trainable parameters" in text and "eval loss" in text


def test_export_of_any_base_and_adapter_outside_a_run(demo: Demo, tmp_path: Path) -> None:
    from pipeline.assets import asset

    arguments = ["--base", str(asset("data/tiny-llama")), "--quantize", "Q8_0"]
    adapter = demo.run.folder("train") / "adapter"
    demo.pipe(
        "export", *arguments, "--adapter", str(adapter), "--out", str(tmp_path), "--no-register"
    )
    same = (demo.run.folder("export") / "my-model-Q8_0.gguf").read_bytes()
    assert (tmp_path / "my-model-Q8_0.gguf").read_bytes() == same
    assert {path.name for path in tmp_path.iterdir()} == {"my-model-Q8_0.gguf", "Modelfile"}


def test_a_changed_adapter_is_named_and_never_exported(demo: Demo, tmp_path: Path) -> None:
    copy = Demo(tmp_path)
    shutil.copytree(demo.run.root, copy.run.root)
    (tmp_path / "pipe.yaml").write_text("extends: demo\n")
    weights = copy.run.folder("train") / "adapter" / "adapter_model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    done = copy.pipe("export", "--no-register", code=1)
    assert "adapter_model.safetensors is not the file that train wrote" in done.stderr
    assert "pipe train --force" in done.stderr
    assert "changed" in copy.pipe("status").stdout


def test_freed_exports_leave_the_run_done_and_are_made_again_byte_by_byte(
    demo: Demo, tmp_path: Path
) -> None:
    copy, name = Demo(tmp_path, demo.ollama), "my-model-Q8_0.gguf"
    shutil.copytree(demo.run.root, copy.run.root)
    (tmp_path / "pipe.yaml").write_text("extends: demo\n")
    freed = json.loads(copy.pipe("clean", "--exports", "--yes", "--json").stdout)
    assert freed["bytes"] > 3_000_000 and not (copy.run.folder("export") / name).exists()
    # a run of all stages finds them done, though two files are gone
    said = copy.pipe("run").stderr
    assert "export is up to date." in said and "eval is up to date." in said
    refused = copy.pipe("eval", "--engine", "Q8_0", "--limit", "3", code=1).stderr
    assert "`pipe clean` freed it" in refused and "Make it again: pipe export" in refused
    copy.pipe("export", "--no-register")
    same = (demo.run.folder("export") / name).read_bytes()
    assert (copy.run.folder("export") / name).read_bytes() == same
    assert copy.run.require("eval") == demo.run.require("eval")


def test_a_torn_gguf_is_one_clear_error(demo: Demo, tmp_path: Path) -> None:
    from pipeline.base import open_base
    from pipeline.chat import Encoder, chat_format
    from pipeline.engines.llamacpp import LlamaCppEngine
    from pipeline.errors import PipeError
    from pipeline.recipe import load

    torn = tmp_path / "torn.gguf"
    torn.write_bytes((demo.run.folder("export") / "my-model-Q8_0.gguf").read_bytes()[:-1000])
    base = open_base(load("demo").recipe.model)
    encoder = Encoder(base.folder / "tokenizer.json", chat_format("llama3.2-reasoning"))
    with pytest.raises(PipeError, match="not a whole GGUF"):
        LlamaCppEngine(torn, encoder, n_ctx=64)
