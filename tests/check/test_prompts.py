"""Prompt gates: one wrong template, tokenizer or BOS each fails the gate that is about it."""

from dataclasses import dataclass, fields
from pathlib import Path

import pytest

from pipeline.chat import ChatFormat, Conversation
from pipeline.check import file, prompts
from pipeline.check.conversations import cases
from pipeline.check.gates import Probe, judge
from pipeline.errors import PipeError
from tests.check.fakes import (
    FORMAT,
    FakeLlama,
    FakeServer,
    FakeTokenizer,
    go_template,
    subject,
)

GATES = (
    prompts.transformers_prompts,
    prompts.llama_cpp_prompts,
    prompts.ollama_prompts,
    prompts.token_ids,
    prompts.token_counts,
    prompts.control_tokens,
    file.one_bos,
)


def test_the_cases_are_at_least_twelve_conversations_of_every_kind() -> None:
    asked = list(cases(thinks=True))
    assert len({case.name for case in asked}) >= 12
    assert any(case.prefill for case in asked) and any(not case.thinking for case in asked)
    texts = [message["content"] for case in asked for message in case.conversation]
    assert any("</think>" in text for text in texts) and any("\r\n" in text for text in texts)
    assert any(text != text.strip() for text in texts) and any("\u0301" in text for text in texts)


@pytest.mark.parametrize("gate", GATES, ids=lambda gate: gate.__name__)
def test_every_prompt_gate_passes_where_all_agree(tmp_path: Path, gate: object) -> None:
    compared, wrong = gate(subject(tmp_path, server=FakeServer()))  # type: ignore[operator]
    assert wrong == [] and compared


def test_another_template_in_the_file_is_found_and_the_place_shown(tmp_path: Path) -> None:
    llama = FakeLlama(template=FORMAT.jinja.replace("| trim", ""))
    _, wrong = prompts.llama_cpp_prompts(subject(tmp_path, llama))
    assert "expected 't<|end_header_id|>\\n\\nIt is 42.<|eot_id|>" in wrong[0]
    named = {each.partition(",")[0] for each in wrong}
    assert named == {"earlier thinking", "outer whitespace", "nothing but a space"}


def test_another_template_beside_the_adapter_is_found(tmp_path: Path) -> None:
    asked = subject(tmp_path)
    template = FORMAT.jinja.replace("<think>\\n\\n</think>", "<think></think>")
    asked.run.tokenizer = FakeTokenizer(template)  # type: ignore[misc]
    _, wrong = prompts.transformers_prompts(asked)
    assert wrong and all("thinking off" in each for each in wrong)


def test_a_template_in_ollama_that_ends_no_turn_fails_its_text_and_its_count(
    tmp_path: Path,
) -> None:
    def spoiled(conversation: Conversation, thinking: bool) -> str:
        return go_template(conversation, thinking).replace("<|eot_id|>", "", 1)

    asked = subject(tmp_path, server=FakeServer(template=spoiled))
    assert "no system, thinking on" in prompts.ollama_prompts(asked)[1][0]
    assert " evaluated" in prompts.token_counts(asked)[1][0]


def test_the_renderer_that_ollama_chose_is_named(tmp_path: Path) -> None:
    def native(conversation: Conversation, thinking: bool) -> str:
        return FakeLlama().render(conversation, thinking=thinking).removeprefix(FORMAT.bos)

    by_go = prompts.ollama_prompts(subject(tmp_path, server=FakeServer()))
    assert "by its Go TEMPLATE" in by_go[0]
    by_jinja = prompts.ollama_prompts(subject(tmp_path, server=FakeServer(template=native)))
    assert "by the file's Jinja template" in by_jinja[0] and by_jinja[1] == []


def test_a_second_bos_is_found_in_the_file_s_template_and_in_ollama_s(tmp_path: Path) -> None:
    twice = FakeLlama(template="{{ bos_token }}" + FORMAT.jinja)
    assert "BOS stands 2 times" in file.one_bos(subject(tmp_path, twice))[1][0]
    server = FakeServer(template=lambda c, t: FORMAT.bos + go_template(c, t))
    asked = subject(tmp_path, server=server)
    assert "BOS stands 2 times" in file.one_bos(asked)[1][0]
    assert prompts.ollama_prompts(asked)[1] and prompts.token_counts(asked)[1]


def test_a_file_that_asks_for_no_bos_fails(tmp_path: Path) -> None:
    _, wrong = file.one_bos(subject(tmp_path, FakeLlama(add_bos=False)))
    assert "BOS is to be added" in wrong[0]


def test_ids_of_another_tokenizer_are_found(tmp_path: Path) -> None:
    asked = subject(tmp_path)
    asked.run.tokenizer = FakeTokenizer(shift=1)  # type: ignore[misc]
    assert "at position 0 ids are" in prompts.token_ids(asked)[1][0]


def test_raw_control_text_is_shown_as_parsed_and_what_clients_send_is_not(tmp_path: Path) -> None:
    compared, wrong = prompts.control_tokens(subject(tmp_path, server=FakeServer()))
    assert wrong == []
    assert "training 0, sent by our clients 0, raw in llama.cpp 2, raw in Ollama 2" in compared


def test_control_text_that_no_client_neutralises_fails(tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Raw(ChatFormat):
        def neutral(self, text: str) -> str:
            return text

    asked = subject(tmp_path)
    raw = Raw(**{each.name: getattr(FORMAT, each.name) for each in fields(FORMAT)})
    asked.format = asked.run.encoder.format = raw
    _, wrong = prompts.control_tokens(asked)
    assert "sent by our clients: <|eot_id|> in a message becomes 2 control tokens" in wrong[0]


def test_prompts_beyond_the_context_are_not_counted_as_wrong(tmp_path: Path) -> None:
    compared, wrong = prompts.token_counts(subject(tmp_path, server=FakeServer(n_ctx=200)))
    assert wrong == [] and compared != "prompt_eval_count of 28 prompts"


def test_a_server_too_old_to_show_prompts_leaves_the_gate_not_run(tmp_path: Path) -> None:
    probe = Probe("text", "prompts", ("server",), "register", prompts.ollama_prompts)
    gate = judge(probe, subject(tmp_path, server=FakeServer(number="0.9.6")))
    assert (gate.status, gate.reason) == (
        "not_run",
        "This Ollama does not show rendered prompts.",
    )


def test_a_foreign_template_that_refuses_a_system_turn_is_asked_the_rest(tmp_path: Path) -> None:
    class Picky(FakeLlama):
        def render(self, conversation: Conversation, *, thinking: bool = True) -> str:
            if conversation[0]["role"] == "system":
                raise PipeError("no system turns")
            return super().render(conversation, thinking=thinking)

    plain = FORMAT.jinja.partition("{%- if enable_thinking")[0] + "{%- endif %}"
    picky, whole = Picky(template=plain), FakeLlama(template=plain)
    server = FakeServer(template=lambda c, _: whole.render(c).removeprefix(FORMAT.bos))
    asked = subject(tmp_path, picky, server, format=None, part=None, thinks=False)
    compared, wrong = prompts.ollama_prompts(asked)
    assert wrong == []
    assert compared.startswith("8 prompts of 8 conversations")
