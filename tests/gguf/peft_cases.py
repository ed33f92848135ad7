"""Small bases and PEFT adapters written with numpy, a whole merge, and what PEFT is asked for."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file, save_file

from pipeline.gguf.weights import Adapter, Checkpoint, load_adapter

F32 = npt.NDArray[np.float32]
Tensors = dict[str, npt.NDArray[Any]]

Q = "model.layers.0.self_attn.q_proj"
DOWN = "model.layers.1.mlp.down_proj"
NORM = "model.norm"
EMBEDDING, HEAD = "model.embed_tokens", "lm_head"
FILE = "adapter_model.safetensors"
STEM = "base_model.model."
SHAPES: dict[str, tuple[int, ...]] = {
    f"{EMBEDDING}.weight": (40, 24),
    f"{Q}.weight": (16, 24),
    f"{Q}.bias": (16,),
    f"{DOWN}.weight": (24, 32),
    f"{NORM}.weight": (24,),
    f"{HEAD}.weight": (40, 24),
}


def random(*shape: int, seed: int = 0) -> F32:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def write_base(folder: Path, tied: bool = False, dtype: type = np.float32) -> Checkpoint:
    """Six tensors, five where output and embedding are tied."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {
        name: random(*shape, seed=number).astype(dtype)
        for number, (name, shape) in enumerate(SHAPES.items())
        if not (tied and name == f"{HEAD}.weight")
    }
    save_file(weights, folder / "model.safetensors")
    return Checkpoint([folder / "model.safetensors"])


def lora(module: str = Q, rank: int = 2, seed: int = 9) -> dict[str, npt.NDArray[Any]]:
    """A and B of a linear layer, as PEFT names them."""
    rows, columns = SHAPES[f"{module}.weight"]
    stem = f"base_model.model.{module}"
    return {
        f"{stem}.lora_A.weight": random(rank, columns, seed=seed),
        f"{stem}.lora_B.weight": random(rows, rank, seed=seed),
    }


def write_peft(
    folder: Path, tensors: Mapping[str, npt.NDArray[Any]] | None = None, **config: Any
) -> Path:
    """An adapter folder; plain LoRA on q_proj where no tensors are given."""
    folder.mkdir(parents=True, exist_ok=True)
    values = {"peft_type": "LORA", "r": 2, "lora_alpha": 6, "bias": "none", **config}
    (folder / "adapter_config.json").write_text(json.dumps(values))
    given = lora() if tensors is None else tensors
    save_file({k: np.ascontiguousarray(v) for k, v in given.items()}, folder / FILE)
    return folder


def load(folder: Path, base: Checkpoint, tied: bool = False) -> Adapter:
    return load_adapter(folder, base, {"tie_word_embeddings": tied})


def merged(base: Checkpoint, adapter: Adapter, slab: int = 7) -> dict[str, F32]:
    """Every tensor after the merge in fp32, made `slab` rows at a time in a mixed order."""
    found = {name: base.read(name).float32() for name in base if name not in adapter.changes}
    for name, change in adapter.changes.items():
        result = np.empty(change.shape, np.float32)
        order = np.random.default_rng(0).permutation(change.shape[0])
        for rows in np.split(order, range(slab, len(order), slab)):
            weight = np.full((len(rows), *change.shape[1:]), np.nan, np.float32)
            if change.source is not None:
                weight = base.read(change.source).float32(rows)
            result[rows] = change.apply(weight, rows)
        found[name] = result
    return found


def weight(base: Checkpoint, name: str) -> F32:
    return base.read(f"{name}.weight").float32()


def delta(tensors: Tensors, module: str) -> npt.NDArray[np.float64]:
    """B @ A of a linear layer."""
    stem = f"{STEM}{module}"
    a, b = tensors[f"{stem}.lora_A.weight"], tensors[f"{stem}.lora_B.weight"]
    product: npt.NDArray[np.float64] = b.astype(np.float64) @ a.astype(np.float64)
    return product


def check(
    base: Checkpoint, folder: Path, expected: dict[str, npt.NDArray[Any]], tied: bool = False
) -> None:
    """Exactly these tensors change, to these values; all others stay as they are."""
    adapter = load(folder, base, tied)
    assert set(adapter.changes) == set(expected)
    found = merged(base, adapter)
    for name, value in found.items():
        wanted = expected.get(name)
        if wanted is None:
            assert np.array_equal(value, base.read(name).float32())
        else:
            np.testing.assert_allclose(value, wanted, rtol=2e-6, atol=2e-6, err_msg=name)


def tensors_of(folder: Path) -> dict[str, npt.NDArray[Any]]:
    return dict(load_file(folder / FILE))


LINEAR = ["q_proj", "v_proj", "o_proj", "down_proj"]


@dataclass(frozen=True)
class Case:
    """A LoraConfig, the base it trains, and whether tied embeddings must come apart."""

    name: str
    peft: dict[str, Any]
    tied: bool = False
    resized: int | None = None
    model: str = "llama"
    save: dict[str, Any] = field(default_factory=dict)
    parted: bool = False

    def __str__(self) -> str:
        return self.name + ("-tied" if self.tied else "")


def case(name: str, **options: Any) -> Case:
    names = {"tied", "resized", "model", "save", "parted"}
    known = {key: options.pop(key) for key in names & options.keys()}
    return Case(name, {"target_modules": LINEAR, **options}, **known)


CASES = [
    case("plain"),
    case("rslora", use_rslora=True),
    case("patterns", rank_pattern={"q_proj": 2, "1.mlp.down_proj": 8},
         alpha_pattern={r"^model.layers.0.self_attn.(q|v)_proj": 3, "o_proj": 64}),
    case("rslora with patterns", use_rslora=True, rank_pattern={"o_proj": 3}),
    case("some layers", layers_to_transform=[1], layers_pattern="layers"),
    case("all linear", target_modules="all-linear"),
    case("gaussian", init_lora_weights="gaussian"),
    case("orthogonal", init_lora_weights="orthogonal"),
    case("mica", init_lora_weights="mica"),
    case("dora", use_dora=True),
    case("dora with rslora", use_dora=True, use_rslora=True, model="qwen2"),
    case("dora on the output", use_dora=True, target_modules=["lm_head"]),
    case("norms", modules_to_save=["norm", "input_layernorm"]),
    case("a whole block", target_modules=["o_proj"], modules_to_save=["layers.1.mlp"]),
    case("both embeddings saved", modules_to_save=["lm_head", "embed_tokens"]),
    case("embedding lora", target_modules=["embed_tokens", "q_proj"]),
    case("output lora", target_modules=["lm_head", "q_proj"]),
    case("tokens", trainable_token_indices=[7, 1, 5]),
    case("tokens of each", trainable_token_indices={"embed_tokens": [5, 2], "lm_head": [3]}),
    case("resized", resized=48),
    case("shrunk", resized=32),
    case("resized tokens", resized=48, trainable_token_indices=[47, 1],
         save={"save_embedding_layers": True}),
    case("biases", model="qwen2", bias="all"),
    case("biases of lora", model="qwen2", bias="lora_only"),
    case("lora bias", model="qwen2", target_modules=["q_proj", "k_proj"], lora_bias=True),
    case("both kinds of bias", model="qwen2", target_modules=["q_proj"], lora_bias=True,
         bias="lora_only"),
    # tied embeddings
    case("plain", tied=True),
    case("output lora", tied=True, parted=True, target_modules=["lm_head", "q_proj"]),
    case("output dora", tied=True, parted=True, target_modules=["lm_head"], use_dora=True),
    case("embedding lora", tied=True, parted=True, target_modules=["embed_tokens"]),
    case("both loras", tied=True, parted=True, target_modules=["embed_tokens", "lm_head"]),
    case("one lora for both", tied=True, target_modules=["embed_tokens"],
         ensure_weight_tying=True),
    case("embedding saved", tied=True, parted=True, modules_to_save=["embed_tokens"]),
    case("embedding saved twice", tied=True, parted=True, modules_to_save=["embed_tokens"],
         save={"save_embedding_layers": True}),
    case("output saved", tied=True, parted=True, modules_to_save=["lm_head"]),
    case("both saved", tied=True, parted=True, modules_to_save=["lm_head", "embed_tokens"]),
    case("saved as one", tied=True, modules_to_save=["embed_tokens"], ensure_weight_tying=True),
    case("tokens", tied=True, trainable_token_indices=[7, 1, 5]),
    case("the same tokens of each", tied=True,
         trainable_token_indices={"embed_tokens": [5, 2], "lm_head": [5, 2]}),
    case("tokens of each", tied=True, parted=True,
         trainable_token_indices={"embed_tokens": [5, 2], "lm_head": [3]}),
    case("tokens of the output", tied=True, parted=True, trainable_token_indices={"lm_head": [3]}),
    case("resized", tied=True, resized=48),
    case("resized tokens", tied=True, resized=48, trainable_token_indices=[47, 1],
         save={"save_embedding_layers": True}),
    case("resized output lora", tied=True, resized=48, parted=True, target_modules=["lm_head"],
         save={"save_embedding_layers": True}),
    case("resized and saved", tied=True, resized=48, parted=True,
         modules_to_save=["embed_tokens"]),
]  # fmt: skip
