"""`pipe quant explain`: tables in a terminal, data, a page, a picture."""

import json

import pytest
from click.testing import CliRunner

from pipeline.cli.app import Pipe
from pipeline.cli.quant_explain import explain


@pytest.fixture
def run(tmp_path, monkeypatch):
    """The command under a group like `pipe`, which says errors; in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PIPE_RECIPE", "demo")
    monkeypatch.setenv("COLUMNS", "100")
    group = Pipe("pipe")
    group.add_command(explain)
    return lambda *options: CliRunner().invoke(group, ["explain", *options])


def test_help_is_a_sentence_and_examples(run):
    said = run("--help").output
    sentence = explain.get_short_help_str(limit=200)
    assert len(sentence) <= 60 and sentence.endswith(".")
    assert "pipe quant explain --out row.html" in said


def test_every_method_is_shown_weight_by_weight_then_compared(run):
    done = run("--columns", "2")
    assert done.exit_code == 0, done.output
    said = done.output
    assert said.startswith("tiny-llama: model.layers.0.self_attn.q_proj.weight, row 0 of 256")
    nf4 = said[said.index("\nNF4\n") : said.index("NF4, double")]
    assert "absmax 0.200195" in nf4
    assert ["+0.05225", "+0.2610", "10", "+0.2461", "+0.04927", "-0.00298"] in [
        line.split() for line in nf4.splitlines()
    ]
    assert "NF4, double quantization  4.127" in said and "GGUF Q4_K" in said
    assert "GPTQ:" in said and "AWQ:" in said


def test_json_holds_as_many_weights_as_were_asked_for(run):
    found = json.loads(run("--json", "--columns", "3", "--row", "5").stdout)
    assert (found["row"], len(found["weights"])) == (5, 3)
    assert {each["method"] for each in found["methods"]} >= {"int8-absmax", "nf4", "fp4"}
    assert all(len(each["codes"]) == 3 for each in found["methods"])


@pytest.mark.parametrize("name", ["row.html", "deep/row.svg"])
def test_out_writes_a_file_and_says_where(run, name, tmp_path):
    done = run("--out", name)
    assert (done.exit_code, done.stdout) == (0, f"{name}\n")
    assert (tmp_path / name).stat().st_size > 1000


def test_another_ending_is_refused_before_any_work(run):
    done = run("--out", "row.png", "--tensor", "nope")
    assert done.exit_code == 2 and ".html or .svg" in done.output


def test_a_tensor_that_is_not_there_is_said_with_those_that_are(run):
    done = run("--tensor", "model.layers.0.self_attn.q")
    assert done.exit_code == 1
    assert "no tensor model.layers.0.self_attn.q" in done.output
    assert "self_attn.q_proj.weight" in done.output
