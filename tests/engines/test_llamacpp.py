"""Real llama.cpp on a model of 200 kB with random weights: replies, scores, facts."""

import numpy as np
import pytest

from pipeline.chat import Encoded, Encoder, chat_format
from pipeline.engines.completion import Decoding
from pipeline.engines.divergence import divergence, perplexity
from pipeline.engines.llamacpp import LlamaCppEngine
from pipeline.errors import PipeError
from tests.support.tiny_gguf import write_tiny_gguf
from tests.support.tokenizer import SPECIALS, write_base

FORMAT = chat_format("llama3.2-reasoning")
N_CTX = 1024
QUESTIONS = [
    [{"role": "user", "content": f"How many is {n} + {n * 7}? {'It is 10. ' * n}"}]
    for n in range(7)
]
LIMIT = Decoding(24)
CLOSE = 0.02
TEMPLATE_KEY = b"tokenizer.chat_template"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_tiny_gguf(tmp_path_factory.mktemp("llama") / "tiny.gguf", FORMAT.jinja)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return Encoder(write_base(tmp_path_factory.mktemp("base")) / "tokenizer.json", FORMAT)


@pytest.fixture(scope="module")
def engine(model, encoder):
    """One conversation at a time."""
    engine = LlamaCppEngine(model, encoder, n_ctx=N_CTX, gpu_layers=0)
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def alone(model):
    """Three conversations at a time, and nothing known but the file."""
    engine = LlamaCppEngine(model, None, n_ctx=N_CTX, gpu_layers=0, batch_size=3)
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def replies(engine):
    return list(engine.answers(QUESTIONS, LIMIT))


def test_replies_are_the_same_one_at_a_time_and_three_at_a_time(alone, replies):
    together = list(alone.answers(QUESTIONS, LIMIT))
    compared = 0
    for one, other in zip(replies, together, strict=True):
        # beyond a lead this small another processor's rounding may choose otherwise
        sure = next((place for place, gap in enumerate(one.gaps) if gap < CLOSE), len(one.gaps))
        np.testing.assert_allclose(one.gaps[:sure], other.gaps[:sure], atol=CLOSE / 2)
        assert sure < len(one.gaps) or one.text == other.text
        compared += sure
    assert compared > 30
    assert len({reply.text for reply in replies}) == len(QUESTIONS)


def test_a_greedy_reply_says_each_lead_and_when_it_began(replies):
    for reply in replies:
        assert len(reply.gaps) == reply.tokens <= LIMIT.max_new_tokens
        assert min(reply.gaps) >= 0
        assert reply.first_token_s is not None and 0 < reply.first_token_s < 60


def test_a_drawn_reply_comes_again_for_its_seed_only_whatever_stands_beside_it(engine, alone):
    drawn = Decoding(16, temperature=1.5, top_p=0.95, seed=3)
    texts = [reply.text for reply in engine.answers(QUESTIONS, drawn)]
    beside = [reply.text for reply in alone.answers(QUESTIONS, drawn)]
    # a draw at the very edge between two tokens may fall otherwise by rounding
    assert sum(a == b for a, b in zip(texts, beside, strict=True)) >= 5
    assert texts[:2] == [reply.text for reply in engine.answers(QUESTIONS[:2], drawn)]
    other = Decoding(16, temperature=1.5, top_p=0.95, seed=4)
    assert texts != [reply.text for reply in engine.answers(QUESTIONS, other)]
    assert all(not reply.gaps for reply in engine.answers(QUESTIONS[:2], drawn))


def test_a_reply_may_be_left_in_the_middle(engine, alone):
    for each in (engine, alone):
        expected = next(each.answers(QUESTIONS[1:2], LIMIT)).text
        next(each.answers(QUESTIONS[2:], LIMIT))
        assert next(each.answers(QUESTIONS[1:2], LIMIT)).text == expected


def test_the_context_is_that_of_each_conversation(model, encoder):
    engine = LlamaCppEngine(model, encoder, n_ctx=96, gpu_layers=0, batch_size=2)
    long = [{"role": "user", "content": "How many apples? " * 40}]
    try:
        prompts = [len(engine.prompt(each)) for each in (QUESTIONS[0], QUESTIONS[1], long)]
        replies = list(engine.answers([*QUESTIONS[:2], long], Decoding(500)))
    finally:
        engine.close()
    assert prompts[0] < prompts[1] < 96 < prompts[2]
    for prompt, reply in zip(prompts, replies, strict=True):
        assert reply.stopped or reply.tokens == max(0, 96 - prompt)


def test_scores_are_the_probabilities_by_which_a_greedy_reply_was_chosen(
    engine, replies, encoder, tmp_path
):
    prompt, keep = encoder.prompt(QUESTIONS[2]), tmp_path / "kept"
    vocabulary = engine.facts()["n_vocab"]
    chosen, gaps = [], []
    for _ in range(12):
        engine.score([Encoded((*prompt, *chosen, 0), len(prompt) + len(chosen))], keep=keep)
        (row,) = np.fromfile(keep, np.float32).reshape(-1, vocabulary)
        *_, second, first = np.sort(row)
        chosen.append(int(row.argmax()))
        gaps.append(float(first - second))
    reply = replies[2]
    assert reply.tokens > len(chosen)
    np.testing.assert_allclose(gaps, reply.gaps[: len(gaps)], atol=CLOSE / 2)
    assert reply.text.startswith(encoder.reply_of(chosen).rstrip("\ufffd"))

    texts = [Encoded((*prompt, *chosen), len(prompt)), Encoded((*prompt, 3, 1, 4), len(prompt))]
    scores = engine.score(texts, keep=keep)
    kept = np.fromfile(keep, np.float32).reshape(-1, vocabulary)
    targets = [*chosen, 3, 1, 4]
    assert kept.argmax(1).tolist()[: len(chosen)] == chosen
    np.testing.assert_array_equal(kept[np.arange(len(kept)), targets], np.concatenate(scores))
    np.testing.assert_allclose(np.exp(kept.astype(np.float64)).sum(1), 1, atol=1e-5)


def test_a_score_does_not_depend_on_where_the_target_starts_or_a_chunk_ends(engine, encoder):
    ids = tuple(encoder.content_ids("There are 12 pens. " * 150))[:900]
    assert len(ids) == 900
    (whole,) = engine.score([Encoded(ids, 1)])
    assert whole.dtype == np.float32 and whole.shape == (899,)
    for start in (2, 300, 511, 512, 513, 899):
        (part,) = engine.score([Encoded(ids, start)])
        np.testing.assert_allclose(part, whole[start - 1 :], atol=1e-3)
    nothing, again = engine.score([Encoded(ids, 900), Encoded(ids[:600], 590)])
    assert nothing.shape == (0,)
    np.testing.assert_allclose(again, whole[589:599], atol=1e-3)
    assert 1 < perplexity([whole]) < np.inf


def test_the_same_file_does_not_diverge_from_itself(engine, alone, encoder, tmp_path):
    text = [encoder.example("How many?", "Two and two is four.", "The answer is 4.")]
    for name, each in {"one": engine, "three": alone}.items():
        each.score(text, keep=tmp_path / name)
    found = divergence(tmp_path / "one", tmp_path / "three", engine.facts()["n_vocab"])
    assert found.mean < 1e-6
    assert found.positions == len(text[0].ids) - text[0].target_start


def test_a_text_longer_than_the_context_is_not_scored_cut(engine):
    with pytest.raises(PipeError, match="Text 1 has 1025 tokens, the context 1024"):
        engine.score([Encoded((1, 2), 1), Encoded((1,) * 1025, 1)])
    with pytest.raises(ValueError):
        engine.score([Encoded((1, 2), 0)])


@pytest.mark.parametrize("thinking", [True, False])
def test_a_file_alone_is_prompted_by_its_own_template_with_one_bos(alone, encoder, thinking):
    earlier = {"role": "assistant", "content": "<think>\nHm.\n</think>\n\nIt is 12."}
    conversation = [
        {"role": "system", "content": "There are 12 pens. 合計 🦙"}, *QUESTIONS[0], earlier,
        {"role": "user", "content": "Grüße, naïve?"},
    ]  # fmt: skip
    for each in (conversation, QUESTIONS[1]):
        expected = encoder.prompt(each, thinking=thinking)
        assert alone.prompt(each, thinking=thinking) == expected
        assert expected.count(alone.facts()["bos"]) == 1


@pytest.mark.parametrize("thinking", [True, False])
def test_a_prefill_is_gone_on_with(alone, engine, encoder, thinking):
    begun = [*QUESTIONS[0], {"role": "assistant", "content": "<think>\nTwo and"}]
    assert alone.render(begun, thinking=thinking) == f"{alone.render(QUESTIONS[0])}<think>\nTwo and"
    assert alone.prompt(begun, thinking=thinking) == encoder.prompt(begun)
    (gone_on,) = alone.answers([begun], LIMIT, thinking=thinking)
    assert gone_on.text == next(engine.answers([begun], LIMIT)).text


def test_a_file_without_a_template_says_so(model, tmp_path):
    assert model.read_bytes().count(TEMPLATE_KEY) == 1
    bare = tmp_path / "bare.gguf"
    bare.write_bytes(model.read_bytes().replace(TEMPLATE_KEY, TEMPLATE_KEY[:-1] + b"X"))
    engine = LlamaCppEngine(bare, None, n_ctx=64, gpu_layers=0)
    try:
        assert not engine.facts()["has_template"]
        with pytest.raises(PipeError, match="no chat template"):
            list(engine.answers(QUESTIONS[:1], LIMIT))
    finally:
        engine.close()


def test_its_facts_are_those_of_the_file(engine, alone, encoder):
    facts = engine.facts()
    tokens = engine.header.metadata["tokenizer.ggml.tokens"]
    assert facts["n_vocab"] == len(tokens)
    assert facts["n_ctx"] == alone.facts()["n_ctx"] == N_CTX
    assert facts["n_ctx_train"] == 2048
    assert tokens[facts["bos"]] == "<|begin_of_text|>"
    assert tokens[facts["eos"]] == tokens[facts["eot"]] == "<|eot_id|>"
    assert facts["add_bos"] and facts["has_template"]
    assert set(facts["eog"]) == encoder.end_ids
    assert sorted(tokens[number] for number in facts["control"]) == sorted(SPECIALS)


def test_letters_of_several_tokens_are_read_whole_without_an_encoder(alone, encoder):
    text = "naïve 🦙 合計\n</think>"
    ids = alone.tokenize(text, add_bos=False)
    assert alone.reply_of([*ids, encoder.end_of_turn_id]) == text == encoder.reply_of(ids)
    assert alone.reply_of(ids[:-9]).startswith("naïve")


def test_memory_is_that_of_the_process_while_it_lives(model, encoder):
    engine = LlamaCppEngine(model, encoder, n_ctx=64, gpu_layers=0)
    held = engine.memory_bytes()
    assert held is not None and held > 10 * model.stat().st_size
    engine.close()
    assert engine.memory_bytes() is None
