"""How the base is opened for training, against fakes; what we lean on in Unsloth's source."""

import ast
import json
import sys
from pathlib import Path
from sysconfig import get_path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.errors import PipeError
from pipeline.recipe.training import Train
from pipeline.train import model as opening
from pipeline.train.job import Job

ON_CPU = {"device": "cpu", "precision": "fp32", "optimizer": "adamw_torch"}


class Unsloth:
    """Opens anything, makes any adapter, and remembers what it was told."""

    def __init__(self) -> None:
        self.opened: dict[str, Any] = {}
        self.adapter: dict[str, Any] = {}
        self.flags: dict[str, bool] = {}
        self.changed: dict[str, Any] = {}

    def from_pretrained(self, **arguments: Any) -> tuple[Any, Any]:
        self.opened = arguments
        flags = {
            "is_loaded_in_4bit": arguments["load_in_4bit"],
            "is_loaded_in_8bit": arguments["load_in_8bit"],
        }
        return SimpleNamespace(**(flags | self.flags)), SimpleNamespace(pad_token_id=None)

    def get_peft_model(self, model: Any, **arguments: Any) -> Any:
        self.adapter = arguments
        made = {"use_dora": False} | arguments | self.changed
        return SimpleNamespace(peft_config={"default": SimpleNamespace(**made)})


@pytest.fixture
def unsloth(monkeypatch: pytest.MonkeyPatch) -> Unsloth:
    fake = Unsloth()
    dtypes = {name: name for name in ("bfloat16", "float16", "float32")}
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(**dtypes))
    monkeypatch.setitem(sys.modules, "unsloth", SimpleNamespace(FastLanguageModel=fake))
    return fake


def job(**train: Any) -> Job:
    return Job(
        base="/base",
        base_name="base",
        base_revision=None,
        config={"dtype": "bfloat16"},
        max_seq_length=512,
        train=Train.model_validate(train),
        seed=7,
        pad_id=639,
        end_ids=(638,),
        chat_template="{{ bos_token }}",
        rows="/rows",
        encoded={},
        samples=[],
        folder="/folder",
        batch_size=1,
        global_batch=1,
    )


@pytest.mark.parametrize(
    ("method", "bits"),
    [("qlora", (True, False)), ("lora", (False, False)), ("lora-8bit", (False, True))],
)
def test_a_method_holds_the_base_in_its_bits(unsloth, method, bits):
    _, tokenizer = opening.open_model(job(method=method))
    assert (unsloth.opened["load_in_4bit"], unsloth.opened["load_in_8bit"]) == bits
    assert unsloth.opened["full_finetuning"] is False
    assert tokenizer.pad_token_id == 639


def test_a_full_training_has_no_adapter_and_fp32_weights_under_bf16_on_a_gpu(unsloth):
    opening.open_model(job(method="full"))
    assert unsloth.opened["full_finetuning"] and unsloth.opened["float32_mixed_precision"]
    assert not unsloth.adapter
    # Transformers would get it there, as an argument of no model
    opening.open_model(job(method="full", **ON_CPU))
    assert "float32_mixed_precision" not in unsloth.opened


@pytest.mark.parametrize(("asked", "told"), [(True, "unsloth"), (False, False)])
@pytest.mark.parametrize("method", ["qlora", "full"])
def test_activations_are_kept_where_that_is_asked(unsloth, method, asked, told):
    opening.open_model(job(method=method, gradient_checkpointing=asked))
    assert unsloth.opened["use_gradient_checkpointing"] == told
    assert unsloth.adapter.get("use_gradient_checkpointing", told) == told


@pytest.mark.parametrize("method", ["qlora", "lora-8bit"])
def test_a_base_that_unsloth_opens_in_16_bits_instead_is_refused(unsloth, method):
    unsloth.flags = {"is_loaded_in_4bit": False, "is_loaded_in_8bit": False}
    with pytest.raises(PipeError, match=f"does not open this base as {method} asks"):
        opening.open_model(job(method=method))


@pytest.mark.parametrize("ignored", ["use_dora", "use_rslora"])
def test_a_setting_that_unsloth_ignores_is_refused(unsloth, ignored):
    unsloth.changed = {ignored: False}
    key = ignored.removeprefix("use_")
    with pytest.raises(PipeError, match=f"'{ignored}': False"):
        opening.open_model(job(lora={key: True}))


def test_a_whole_model_is_the_bases_own_but_for_its_weights(tmp_path):
    base, folder = tmp_path / "base", tmp_path / "result" / "model"
    base.mkdir()
    for name in ("config.json", "tokenizer.json"):
        (base / name).write_text(f'"{name} of the base"')
    saved = SimpleNamespace(to=lambda dtype: SimpleNamespace(save_pretrained=_saved(dtype)))
    whole = job(method="full")
    torch = SimpleNamespace(bfloat16="bf16")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "torch", torch)
        own = Job(**{**vars(whole), "base": str(base)})
        opening.save_result(saved, None, own, tmp_path / "result")
    # no generation_config.json: the base has none, and Transformers' is a guess
    assert {path.name for path in folder.iterdir()} == {
        "config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "model.safetensors",
    }
    assert (folder / "config.json").read_text() == '"config.json of the base"'
    assert (folder / "model.safetensors").read_text() == "bf16"
    words = json.loads((folder / "tokenizer_config.json").read_text())
    assert words == {"chat_template": "{{ bos_token }}"}


def _saved(dtype: str) -> Any:
    def save_pretrained(folder: Path) -> None:
        folder.mkdir(parents=True)
        for name in ("config.json", "generation_config.json", "README.md"):
            (folder / name).write_text("of Transformers")
        (folder / "model.safetensors").write_text(dtype)

    return save_pretrained


def test_a_quantized_weight_counts_as_what_it_stands_for():
    packed = SimpleNamespace(quant_state=SimpleNamespace(shape=(256, 512)))
    assert opening.weights_of(packed) == 256 * 512
    assert opening.weights_of(SimpleNamespace(numel=lambda: 24)) == 24


# Unsloth takes any argument and reads a hundred variables: a name that a release gives up is
# ignored without a word, on a GPU that no test here has.


def test_unsloths_loader_for_a_gpu_knows_every_argument_that_it_is_given(unsloth):
    opening.open_model(job(method="full"))
    known = _parameters("models/loader.py", "from_pretrained") | {"local_files_only"}
    assert unsloth.opened.keys() <= known


def test_unsloths_adapters_for_a_gpu_know_every_argument_that_they_are_given(unsloth):
    opening.open_model(job(lora={"dora": True}))
    # DoRA goes on to PEFT
    asked = unsloth.adapter.keys() - {"use_dora"}
    assert asked <= _parameters("models/llama.py", "get_peft_model")
    assert asked <= _parameters("models/vision.py", "get_peft_model")
    assert "    use_dora: bool" in (_folder("peft") / "tuners" / "lora" / "config.py").read_text()


@pytest.mark.parametrize(
    ("name", "package", "path"),
    [
        ("_unsloth_truncated_to", "unsloth", "models/rl.py"),
        ("UNSLOTH_CE_LOSS_TARGET_GB", "unsloth_zoo", "fused_losses/cross_entropy_loss.py"),
        ("UNSLOTH_PADDING_CHOICE", "unsloth", "utils/padding_choice.py"),
        ("are_deterministic_algorithms_enabled", "unsloth", "utils/attention_dispatch.py"),
        ('sequence_lengths_key: str = "seq_lengths"', "unsloth", "utils/packing.py"),
        ("FUSED_LORA_DROPOUT", "unsloth", "kernels/fast_lora.py"),
    ],
)
def test_unsloth_still_knows_what_we_lean_on(name, package, path):
    assert name in (_folder(package) / path).read_text(encoding="utf-8")


def test_trl_still_takes_labels_and_lengths_as_we_give_them():
    text = (_folder("trl") / "trainer" / "sft_trainer.py").read_text(encoding="utf-8")
    assert 'example.get("labels", example["input_ids"])' in text
    assert 'example["seq_lengths"] for example in examples' in text


def _folder(package: str) -> Path:
    """Where it is installed; importing it would take ten seconds."""
    return Path(get_path("purelib")) / package


def _parameters(path: str, function: str) -> set[str]:
    """Names of the parameters of a method, of every class in the file that has it."""
    text = (_folder("unsloth") / path).read_text(encoding="utf-8")
    found = [
        {each.arg for each in (*node.args.args, *node.args.kwonlyargs)}
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef) and node.name == function
    ]
    return set.intersection(*found)
