"""Real PEFT adapters with random weights: our merge against PEFT's own, and what was trained.

Both merge in fp32 here. Into a 16-bit base PEFT adds an adapter of fp32 as we do, rounding the sum
once; a 16-bit adapter's delta it rounds first, and so do safe_merge and embeddings always.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.errors import PipeError
from pipeline.gguf.weights import Adapter, Checkpoint, load_adapter, peft_config
from tests.gguf.peft_cases import CASES, F32, LINEAR, Case, case, merged

pytestmark = [pytest.mark.e2e, pytest.mark.filterwarnings("ignore")]


def write_base(folder: Path, case: Case, dtype: str = "float32") -> Path:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

    configs = {"llama": (LlamaConfig, LlamaForCausalLM), "qwen2": (Qwen2Config, Qwen2ForCausalLM)}
    config, model = configs[case.model]
    torch.manual_seed(0)
    base = model(
        config(
            vocab_size=40, hidden_size=64, intermediate_size=96, num_hidden_layers=2,
            num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64,
            tie_word_embeddings=case.tied,
        )
    )  # fmt: skip
    for name, parameter in base.named_parameters():
        if name.endswith(("bias", "norm.weight")):
            parameter.data += 0.1 * torch.randn_like(parameter)
    base.to(getattr(torch, dtype)).save_pretrained(folder)
    return folder


def read_base(folder: Path, case: Case) -> Any:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    if case.resized:
        model.resize_token_embeddings(case.resized, mean_resizing=False)
    return model


def train(peft: Any) -> None:
    """Random weights in place of training."""
    import torch

    torch.manual_seed(1)
    for name, parameter in peft.named_parameters():
        if parameter.requires_grad or "lora_" in name:
            parameter.data += 0.1 * torch.randn_like(parameter)


def logits(model: Any) -> F32:
    import torch

    with torch.no_grad():
        out: F32 = model.eval()(torch.arange(30)[None]).logits.float().numpy()
    return out


def as_model(folder: Path, case: Case, weights: dict[str, F32], parted: bool) -> Any:
    """The merged tensors in Transformers."""
    import torch

    model = read_base(folder, case)
    if parted:
        model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.from_numpy(weights[name]))
    return model


def saved(tmp_path: Path, case: Case, dtype: str = "float32") -> tuple[Path, Path, Any]:
    """Folders of base and adapter, and the trained model."""
    import torch
    from peft import LoraConfig, get_peft_model

    torch.set_num_threads(1)
    base = write_base(tmp_path / "base", case, dtype)
    config = LoraConfig(r=4, lora_alpha=8, task_type="CAUSAL_LM", **case.peft)
    peft = get_peft_model(read_base(base, case), config)
    train(peft)
    peft.save_pretrained(tmp_path / "adapter", **case.save)
    return base, tmp_path / "adapter", peft


def ours(base: Path, adapter: Path, case: Case) -> tuple[Adapter, dict[str, F32]]:
    checkpoint = Checkpoint([base / "model.safetensors"])
    loaded = load_adapter(adapter, checkpoint, {"tie_word_embeddings": case.tied})
    return loaded, merged(checkpoint, loaded, slab=19)


def peft_merge(base: Path, adapter: Path, case: Case) -> dict[str, F32]:
    from peft import PeftModel

    model = PeftModel.from_pretrained(read_base(base, case), adapter).merge_and_unload()
    return {name: value.float().numpy() for name, value in model.state_dict().items()}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_merge_computes_what_was_trained_and_is_pefts(tmp_path: Path, case: Case) -> None:
    base, folder, peft = saved(tmp_path, case)
    adapter, weights = ours(base, folder, case)
    assert adapter.own_head is case.parted
    assert adapter.rows == case.resized
    model = as_model(base, case, weights, adapter.own_head)
    np.testing.assert_allclose(logits(model), logits(peft), rtol=1e-4, atol=2e-5)
    # merging LoRA into tied embeddings, PEFT adds to both, and twice where both have it
    if not case.parted and case.name != "one lora for both":
        expected = peft_merge(base, folder, case)
        for name in weights:
            np.testing.assert_allclose(weights[name], expected[name], rtol=1e-5, atol=1e-5)


INITIALISATIONS = ("pissa", "pissa_niter_4", "olora", "corda", "lora_ga")


def residual(tmp_path: Path, init: str, **options: Any) -> tuple[Path, Path, Any]:
    """A model whose base the initialisation changes; its start is saved as PEFT's examples do."""
    import torch
    from peft import LoraConfig, get_peft_model
    from peft.tuners.lora import corda, loraga
    from peft.tuners.lora.config import CordaConfig, LoraGAConfig

    torch.set_num_threads(1)
    base = write_base(tmp_path / "base", case("plain"))
    model = read_base(base, case("plain"))
    settings = {
        "corda": {"corda_config": CordaConfig()},
        "lora_ga": {"lora_ga_config": LoraGAConfig()},
    }
    config = LoraConfig(
        r=4, lora_alpha=8, task_type="CAUSAL_LM", target_modules=LINEAR, init_lora_weights=init,
        **settings.get(init, {}), **options,
    )  # fmt: skip
    tokens = torch.randint(0, 40, (8, 60))
    if init == "corda":
        corda.preprocess_corda(
            model, config, run_model=lambda: [model(row[None]) for row in tokens]
        )
    if init == "lora_ga":

        def step() -> None:
            model(tokens, labels=tokens).loss.backward()

        loraga.preprocess_loraga(model, config, step)
    peft = get_peft_model(model, config)
    peft.save_pretrained(tmp_path / "adapter" / f"{init.partition('_niter')[0]}_init")
    train(peft)
    peft.save_pretrained(tmp_path / "adapter")
    return base, tmp_path / "adapter", peft


@pytest.mark.parametrize("rslora", [False, True])
@pytest.mark.parametrize("init", INITIALISATIONS)
def test_a_residual_initialisation_is_undone_by_the_adapter_saved_before_training(
    tmp_path: Path, init: str, rslora: bool
) -> None:
    base, folder, peft = residual(tmp_path, init, use_rslora=rslora)
    adapter, weights = ours(base, folder, case("plain"))
    assert any("undone" in method for method in adapter.summary["methods"])
    trained = peft.merge_and_unload().state_dict()
    for name in weights:
        expected = trained[name].float().numpy()
        np.testing.assert_allclose(weights[name], expected, rtol=1e-5, atol=3e-5)


def test_what_peft_converts_to_plain_lora_merges_as_it_is(tmp_path: Path) -> None:
    base, folder, peft = residual(tmp_path, "pissa")
    start, converted = folder / "pissa_init", tmp_path / "converted"
    config = json.loads((start / "adapter_config.json").read_text())
    (start / "adapter_config.json").write_text(json.dumps(config | {"init_lora_weights": True}))
    peft.save_pretrained(converted, path_initial_model_for_weight_conversion=str(start))
    adapter, weights = ours(base, converted, case("plain"))
    assert adapter.summary["ranks"] == [8]
    _, expected = ours(base, folder, case("plain"))
    for name in weights:
        np.testing.assert_allclose(weights[name], expected[name], rtol=1e-5, atol=3e-5)


def test_loftq_is_undone_up_to_what_its_quantization_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PEFT's own LoftQ needs a GPU: a coarse grid stands in for its 4-bit type."""
    import torch
    from peft.tuners.lora import layer

    def loftq_init(weight: Any, num_bits: int, reduced_rank: int, num_iter: int) -> Any:
        quantized = (weight.data * 16).round() / 16
        u, s, v = torch.linalg.svd(weight.data - quantized)
        root = s[:reduced_rank].sqrt()
        return quantized, root[:, None] * v[:reduced_rank], u[:, :reduced_rank] * root

    monkeypatch.setattr(layer, "loftq_init", loftq_init)
    base, folder, peft = residual(
        tmp_path, "loftq", loftq_config={"loftq_bits": 4, "loftq_iter": 1}
    )
    adapter, weights = ours(base, folder, case("plain"))
    trained = peft.merge_and_unload().state_dict()
    original = Checkpoint([base / "model.safetensors"])
    for name in adapter.changes:
        weight = original.read(name).float32()
        lost = np.linalg.norm(weight - np.round(weight * 16) / 16)
        # what rank 4 could not give back: all would be lost with a wrong scale
        left = np.linalg.norm(weights[name] - trained[name].float().numpy())
        assert left < 0.97 * lost, name


@pytest.mark.parametrize("adapter_dtype", ["float32", "bfloat16"])
def test_a_16_bit_base_is_rounded_once(tmp_path: Path, adapter_dtype: str) -> None:
    import torch
    from peft import PeftModel
    from safetensors.torch import load_file, save_file

    base, folder, _ = saved(tmp_path, case("plain"), "bfloat16")
    if adapter_dtype == "bfloat16":
        file = folder / "adapter_model.safetensors"
        as_bf16 = {name: value.bfloat16() for name, value in load_file(file).items()}
        save_file(as_bf16, file)
    _, weights = ours(base, folder, case("plain"))
    model = read_base(base, case("plain"))
    wide = adapter_dtype == "float32"
    peft = PeftModel.from_pretrained(model, folder, autocast_adapter_dtype=wide)
    theirs = peft.merge_and_unload().state_dict()
    exact = {name: torch.from_numpy(value) for name, value in weights.items()}
    same = {name: (exact[name].bfloat16() == theirs[name]).float().mean() for name in exact}
    if wide:
        assert min(same.values()) > 0.999
    else:
        assert min(same.values()) < 0.95
        for name, value in exact.items():
            once, twice = (value.bfloat16() - value).abs(), (theirs[name] - value).abs()
            assert bool((once <= twice).all())


def test_other_methods_are_refused_by_name(tmp_path: Path) -> None:
    from peft import AdaLoraConfig, IA3Config, LoHaConfig, get_peft_model

    base = write_base(tmp_path / "base", case("plain"))
    modules = {"target_modules": ["q_proj"]}
    for config, name in (
        (AdaLoraConfig(total_step=10, **modules), "ADALORA"),
        (IA3Config(feedforward_modules=[], **modules), "IA3"),
        (LoHaConfig(**modules), "LOHA"),
    ):
        get_peft_model(read_base(base, case("plain")), config).save_pretrained(tmp_path / name)
        with pytest.raises(PipeError, match=f"is a {name} adapter; only LoRA is merged"):
            ours(base, tmp_path / name, case("plain"))


def test_every_key_of_pefts_configuration_is_known_or_refused() -> None:
    """A new PEFT with a new key: decide what a merge has to do about it."""
    from peft import LoraConfig

    refused = {
        "alora_invocation_tokens", "arrow_config", "fan_in_fan_out", "kasa_config",
        "layer_replication", "megatron_config", "monteclora_config", "target_parameters",
        "use_bdlora", "use_qalora", "velora_config",
    }  # fmt: skip
    keys = LoraConfig().to_dict().keys()
    assert keys - peft_config._READ - peft_config._WITHOUT_EFFECT == refused
