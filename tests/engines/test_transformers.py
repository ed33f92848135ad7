"""Transformers with the shipped tiny base: log-probabilities, the adapter's change, sampling."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.base import open_base
from pipeline.chat import Encoded, Encoder, chat_format
from pipeline.engines.completion import Decoding
from pipeline.engines.loading import Bits, Variant, load_model
from pipeline.engines.transformers import TransformersEngine
from pipeline.errors import PipeError
from pipeline.recipe.schema import Model

pytestmark = pytest.mark.e2e

BASE = open_base(Model(base="builtin:tiny-llama"))
ENCODER = Encoder(BASE.folder / "tokenizer.json", chat_format("llama3.2-reasoning"))
TEXTS = [
    ENCODER.example("How many?", "One and one " * n, f"It is {n}.", system="Be brief.")
    for n in (3, 1, 40, 7, 2)
]
CHATS = [
    [{"role": "user", "content": text}]
    for text in ("Hello", "How much is 1 + 2?", "Leo owns 42 pens. How many pens?")
]
Q = "model.layers.0.self_attn.q_proj"


def opened(
    variant: Variant, adapter: Path | None = None, *, bits: Bits = 16, batch_size: int = 16
) -> TransformersEngine:
    model = load_model(variant, BASE, adapter, bits=bits, device="cpu")
    return TransformersEngine(variant, model, ENCODER, batch_size=batch_size)


@pytest.fixture(scope="module")
def base():
    """Its batches are smaller than what it is asked, so that order can go wrong."""
    with_batches = opened("base", batch_size=2)
    yield with_batches
    with_batches.close()


def write_adapter(folder, **config):
    """A fresh adapter on two projections, with a B that is not zero."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(BASE.folder, dtype=torch.float32)
    settings = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "down_proj"], **config}
    tuned = get_peft_model(model, LoraConfig(**settings))
    for name, parameter in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    tuned.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    return write_adapter(tmp_path_factory.mktemp("adapter"))


def plain(model, encoded):
    """[targets, vocabulary] natural log-probabilities, one sequence alone, by the whole model."""
    import torch

    with torch.no_grad():
        logits = model(input_ids=torch.tensor([encoded.ids])).logits[0].double()
    return torch.log_softmax(logits, dim=-1)[encoded.target_start - 1 : -1].numpy()


def test_scores_are_those_of_one_sequence_at_a_time(base, tmp_path):
    kept = tmp_path / "kept"
    scores = base.score(TEXTS, kept)
    whole = [plain(base._model, text) for text in TEXTS]
    for text, found, expected in zip(TEXTS, scores, whole, strict=True):
        targets = text.ids[text.target_start :]
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected[np.arange(len(targets)), targets], atol=1e-4)
    rows = np.fromfile(kept, np.float32).reshape(-1, whole[0].shape[1])
    np.testing.assert_allclose(rows, np.concatenate(whole), atol=1e-4)


def test_scores_do_not_depend_on_the_batch_size_or_on_how_many_logits_are_held(base, monkeypatch):
    expected = base.score(TEXTS)
    for size, rows in ((1, 512), (5, 7)):
        monkeypatch.setattr(base, "_batch_size", size)
        monkeypatch.setattr("pipeline.engines.transformers._ROWS", rows)
        for one, other in zip(base.score(TEXTS), expected, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-4)


def test_a_text_without_targets_has_no_scores_and_its_neighbours_keep_theirs(base, tmp_path):
    none = Encoded(TEXTS[0].ids, len(TEXTS[0].ids))
    kept = tmp_path / "kept"
    kept.write_bytes(b"older and longer" * 100_000)
    first, second = base.score([none, TEXTS[1]], kept)
    assert len(first) == 0
    np.testing.assert_allclose(second, base.score([TEXTS[1]])[0], atol=1e-4)
    assert kept.stat().st_size == len(second) * BASE.config["vocab_size"] * 4


def test_a_first_token_cannot_be_scored(base):
    with pytest.raises(ValueError, match="nothing before it"):
        base.score([Encoded((633, 1), 0)])


def test_the_adapter_scores_with_its_change_and_the_merge_the_same(base, adapter):
    tuned, merged = opened("adapter", adapter), opened("merged", adapter)
    (own,), (theirs,), (untuned,) = (e.score(TEXTS[:1]) for e in (tuned, merged, base))
    np.testing.assert_allclose(
        own,
        plain(tuned._model, TEXTS[0])[range(len(own)), TEXTS[0].ids[TEXTS[0].target_start :]],
        atol=1e-4,
    )
    assert np.abs(own - theirs).max() < 0.1 < np.abs(own - untuned).max()


def test_deltas_are_what_a_merge_adds(adapter):
    from safetensors.torch import load_file

    engine = opened("adapter", adapter)
    deltas = dict(engine.adapter_deltas())
    saved = load_file(adapter / "adapter_model.safetensors")
    layers = BASE.config["num_hidden_layers"]
    assert len(deltas) == 2 * layers and Q in deltas
    for name, delta in deltas.items():
        a, b = (saved[f"base_model.model.{name}.lora_{x}.weight"] for x in "AB")
        assert delta.dtype == np.float32
        np.testing.assert_allclose(delta, (2 * b @ a).numpy(), atol=1e-6)
    weights = load_file(BASE.folder / "model.safetensors")
    assert all(weights[f"{name}.weight"].shape == delta.shape for name, delta in deltas.items())


@pytest.mark.parametrize(
    "config", [{"use_dora": True}, {"modules_to_save": ["lm_head"]}, {"lora_bias": True}]
)
def test_a_change_that_is_no_matrix_is_refused(tmp_path, config):
    engine = opened("adapter", write_adapter(tmp_path, **config))
    with pytest.raises(PipeError, match="more than plain LoRA"):
        list(engine.adapter_deltas())


def test_a_model_trained_in_full_is_opened_as_it_is_and_has_no_deltas(base):
    tuned, merged = (opened(name) for name in ("adapter", "merged"))
    assert tuned.name == "adapter"
    for engine in (tuned, merged):
        for found, expected in zip(engine.score(TEXTS), base.score(TEXTS), strict=True):
            np.testing.assert_allclose(found, expected, atol=1e-4)
        with pytest.raises(ValueError, match="holds no adapter"):
            list(engine.adapter_deltas())
        engine.close()


def test_only_the_adapter_has_deltas(base):
    with pytest.raises(ValueError, match="holds no adapter"):
        list(base.adapter_deltas())


def test_the_base_in_four_bits_takes_less_memory_and_scores_otherwise(base):
    import bitsandbytes

    engine = opened("base", bits=4)
    assert isinstance(engine._model.model.layers[0].mlp.up_proj, bitsandbytes.nn.Linear4bit)
    assert engine.memory_bytes() < base.memory_bytes() / 2
    (nf4,), (full,) = engine.score(TEXTS[:1]), base.score(TEXTS[:1])
    assert 1e-3 < np.abs(nf4 - full).mean() < 1
    engine.close()
    assert engine.memory_bytes() is None


def test_a_merge_in_four_bits_is_refused(adapter: Path):
    with pytest.raises(ValueError, match="16 bits"):
        opened("merged", adapter, bits=4)


def test_greedy_replies_know_their_leads_and_the_time_of_the_first_token(base):
    decoding = Decoding(6)
    for chat, done in zip(CHATS, base.answers(CHATS, decoding), strict=True):
        assert len(done.gaps) == done.tokens
        encoded = [*ENCODER.prompt(chat), *ENCODER.content_ids(done.text)]
        logs = plain(base._model, Encoded(tuple(encoded), len(ENCODER.prompt(chat))))
        top = np.sort(logs[0])
        assert done.gaps[0] == pytest.approx(top[-1] - top[-2], abs=1e-3)
        assert 0 < done.first_token_s < 60


def test_sampled_replies_repeat_with_their_seed_and_only_with_it(base):
    def said(seed, temperature=1.0, top_p=1.0):
        decoding = Decoding(12, temperature, top_p, seed)
        return [done.text for done in base.answers(CHATS, decoding)]

    greedy = [done.text for done in base.answers(CHATS, Decoding(12))]
    assert said(1) == said(1) != said(2)
    assert said(1) != greedy
    assert said(1, top_p=1e-6) == said(2, top_p=1e-6) == greedy
    assert not next(base.answers(CHATS, Decoding(2, 1.0))).gaps


def test_two_of_the_same_question_in_other_batches_are_drawn_differently(base):
    texts = [done.text for done in base.answers([CHATS[1]] * 4, Decoding(24, 1.5, 1.0, 5))]
    assert len(set(texts)) == 4
