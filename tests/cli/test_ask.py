"""`pipe chat --ask`: what scripts get from a partner that says what it is told to."""

import json
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import pytest
from click.testing import CliRunner

from pipeline.chat import Reply
from pipeline.cli import main
from pipeline.engines.talk import Manner, Piece
from pipeline.run import Manifest
from tests.support.exported import demo, exported_run
from tests.support.faulty_ollama import faulty_ollama
from tests.support.scripted import Scripted, ending, reply


@pytest.fixture
def asked(tmp_path, monkeypatch):
    """`pipe chat` with a scripted partner: exit code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PIPE_RECIPE", raising=False)

    def run(partner: Scripted, *arguments: str, given: str = "") -> tuple[int, str, str]:
        @contextmanager
        def talking(*_):
            yield partner

        monkeypatch.setattr("pipeline.workflow.talks.talking", talking)
        done = CliRunner().invoke(main, ["chat", "-r", "demo", *arguments], input=given)
        return done.exit_code, done.stdout, done.stderr

    return run


def test_ask_gives_scripts_the_answer_alone(asked):
    assert asked(Scripted(reply()), "--ask", "2 + 2?") == (0, "4\n", "two and two\n\n")
    together = asked(Scripted(reply()), "--ask", "2 + 2?", "--thinking")
    assert together == (0, "two and two\n\n4\n", "")


def test_ask_reads_standard_input_and_takes_every_wish(asked):
    partner = Scripted(reply())
    drawing = ["--temperature", "0", "--seed", "9", "--max-tokens", "12"]
    wishes = ["--no-think", *drawing, "--system", "S", "--ask", "-"]
    assert asked(partner, *wishes, given="from\na pipe\n")[0] == 0
    ((conversation, manner),) = partner.asked
    assert [message["content"] for message in conversation] == ["S", "from\na pipe"]
    assert manner == Manner(0.0, 9, 12, thinking=False)


def test_ask_as_json_says_all_there_is(asked):
    code, out, _ = asked(Scripted(reply()), "--ask", "x", "--json")
    assert code == 0
    assert json.loads(out) == {
        "thinking": "two and two",
        "answer": "4",
        "stopped": True,
        "tokens": 5,
        "seconds": 1.5,
        "first_token_s": 0.5,
    }


def test_a_cut_reply_is_a_failure_whose_text_is_there_all_the_same(asked):
    cut = Scripted([Piece("answer", "The answ", 3), ending("length", 3)])
    code, out, error = asked(cut, "--ask", "x", "--max-tokens", "3")
    assert (code, out, error) == (1, "The answ\n", "Cut off after 3 tokens: --max-tokens.\n")
    code, out, _ = asked(cut, "--ask", "x", "--json")
    assert code == 1 and json.loads(out)["stopped"] is False


@pytest.mark.parametrize(
    "arguments",
    [
        ["--gguf", "x", "--ollama"],
        ["--gguf", "x", "--type", "Q8_0"],
        ["--ask", "x", "--web"],
        ["--ask", "  "],
        ["--json"],
        ["--thinking"],
        ["--port", "1"],
        ["--no-base"],
        ["--ask", "-"],
        ["--ask", "\udcff"],
        ["--system", "\udcff", "--ask", "x"],
        ["--gguf", ".", "--ask", "x"],
    ],
)
def test_options_that_do_not_go_together_are_wrong_usage(asked, arguments):
    assert asked(Scripted(), *arguments)[0] == 2


def test_without_a_run_the_first_command_is_said(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for whom in ([], ["--ollama"], ["--type", "q8_0"]):
        done = CliRunner().invoke(main, ["chat", "-r", "demo", "--ask", "x", *whom])
        assert done.exit_code == 1 and "Run: pipe prepare -r demo" in done.stderr


def test_a_type_that_was_not_exported_is_named_with_those_that_were(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.gguf").write_bytes(b"x")
    exported_run(Path("runs/demo"), demo(), {"Q8_0": tmp_path / "x.gguf"})
    done = CliRunner().invoke(main, ["chat", "-r", "demo", "--type", "Q4_K_M", "--ask", "x"])
    assert done.exit_code == 1 and "holds no Q4_K_M; it holds Q8_0." in done.stderr
    assert "pipe export -r demo --quantize Q4_K_M" in done.stderr


def test_thinking_that_was_never_opened_is_thinking_all_the_same(asked):
    whole = replace(ending(), reply=Reply("2 + 3", "5", False))
    partner = Scripted([Piece("answer", "2 + 3\n</think>\n\n5", 3), whole])
    said = json.loads(asked(partner, "--ask", "x", "--json")[1])
    assert (said["thinking"], said["answer"]) == ("2 + 3", "5")


def serve_stage(run, digest: str) -> None:
    with run.publish("serve") as draft:
        models = [{"name": "m", "type": "Q8_0", "digest": "sha256:" + "a" * 64, "served": digest}]
        draft.manifest = Manifest(
            stage="serve", section={}, inputs=run.input_entry("export"), facts={"models": models}
        )


def test_another_file_under_this_runs_name_in_ollama_is_not_taken_for_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.gguf").write_bytes(b"x")
    run = exported_run(Path("runs/demo"), demo(), {"Q8_0": tmp_path / "x.gguf"})
    ours, theirs = ("sha256:" + letter * 64 for letter in "bc")
    serve_stage(run, ours)
    with faulty_ollama() as server:
        monkeypatch.setenv("OLLAMA_HOST", server.url)
        asking = ["chat", "-r", "demo", "--ollama", "--ask", "x"]
        server.models["m"] = {"files": {"m": ours}}
        assert CliRunner().invoke(main, asking).stdout == "5\n"
        server.models["m"] = {"files": {"m": theirs}}
        done = CliRunner().invoke(main, asking)
    assert done.exit_code == 1 and "m in Ollama is another file now" in done.stderr
    assert "pipe register" in done.stderr


def test_a_file_whose_sampling_is_no_number_is_sampled_as_the_recipe_says():
    from pipeline.workflow.talks import _own_sampling

    values = {"temp": "hot", "top_p": [0.9], "penalty_repeat": 1.1}
    work, notes = Mock(), []
    work.emit = notes.append
    header = {f"general.sampling.{key}": value for key, value in values.items()}
    assert _own_sampling(work, header) == {"repeat_penalty": 1.1}
    assert [note.text for note in notes] == [
        "The file's general.sampling.temp is not used: 'hot'.",
        "The file's general.sampling.top_p is not used: [0.9].",
    ]
