"""What a file says about itself: name, origins, licence, sampling, chat template."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import PipeError
from pipeline.gguf.models.licence import License
from pipeline.gguf.models.vocabulary import read_json

if TYPE_CHECKING:
    from gguf import GGUFWriter

QUANTIZATION_VERSION = 2
"""GGML_QNT_VERSION (llama.cpp's ggml/include/ggml.h)."""
SAMPLING = ("temp", "top_k", "top_p", "min_p", "penalty_last_n", "penalty_repeat")
"""Keys under general.sampling that llama.cpp takes as defaults (common_init_sampler_from_model)."""
_WHOLE = ("top_k", "penalty_last_n")
_LARGEST = 2**31 - 1
"""Of an INT32 key; no sampling default means anything beyond."""
_GENERATION = {"temperature": "temp", "repetition_penalty": "penalty_repeat"}
_HUB = "https://huggingface.co"


@dataclass(frozen=True)
class Origin:
    """A base model or a dataset that the model comes from."""

    name: str
    organization: str | None = None
    repo_url: str | None = None

    @classmethod
    def of_model(cls, repository: str) -> "Origin":
        """Of a hub id such as `meta-llama/Llama-3.2-1B`, titled as llama.cpp's converter does."""
        return cls._of_hub(repository, "")

    @classmethod
    def of_dataset(cls, repository: str) -> "Origin":
        return cls._of_hub(repository, "datasets/")

    @classmethod
    def _of_hub(cls, repository: str, kind: str) -> "Origin":
        from gguf import Metadata

        owner, slash, name = repository.rpartition("/")
        url = f"{_HUB}/{kind}{repository}" if slash else None
        return cls(Metadata.id_to_title(name), Metadata.id_to_title(owner) or None, url)


@dataclass(frozen=True)
class Description:
    """Facts for `general.*` and the chat template. What is None or empty is left out."""

    name: str
    license: License
    size_label: str
    chat_template: str | None = None
    base: Origin | None = None
    datasets: Sequence[Origin] = ()
    basename: str | None = None
    finetune: str | None = None
    sampling: Mapping[str, float] = field(default_factory=dict)
    """Defaults by the names in SAMPLING."""

    def __post_init__(self) -> None:
        if unknown := set(self.sampling) - set(SAMPLING):
            raise PipeError(
                f"No sampling default is called {sorted(unknown)[0]}.",
                f"There are: {', '.join(SAMPLING)}",
            )


def describe(
    writer: "GGUFWriter",
    description: Description,
    file_type: int,
    importance: Mapping[str, str | int] | None = None,
) -> None:
    """Write `general.*`, the chat template and what llama-quantize adds (quantize.cpp).

    `file_type` is llama.cpp's llama_ftype; `importance` is Importance.metadata().
    The order is that of Metadata.set_gguf_meta_model.
    """
    writer.add_type("model")
    for key, value in description.sampling.items():
        getattr(writer, f"add_sampling_{key}")(value)
    _add_facts(writer, description)
    if description.chat_template is not None:
        writer.add_chat_template(description.chat_template)
    writer.add_file_type(file_type)
    writer.add_quantization_version(QUANTIZATION_VERSION)
    for key, fact in (importance or {}).items():
        if isinstance(fact, str):
            writer.add_string(key, fact)
        else:
            writer.add_uint32(key, fact)


def describe_adapter(writer: "GGUFWriter", description: Description, alpha: float) -> None:
    """Write `general.*` and `adapter.*` as convert_lora_to_gguf.py does.

    llama.cpp scales each pair by `alpha` over its rank (llama_adapter_lora_weight::get_scale).
    """
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", alpha)
    _add_facts(writer, description)
    writer.add_quantization_version(QUANTIZATION_VERSION)


def size_label(parameters: int) -> str:
    """Parameters as llama.cpp writes general.size_label for a dense model: 1.2B, 596M."""
    from gguf import size_label as label

    return str(label(parameters, parameters, 0, 0))


def name_parts(repository: str) -> tuple[str | None, str | None]:
    """(basename, finetune) of a hub id: ("Llama-3.2", "Instruct") of `Llama-3.2-1B-Instruct`."""
    from gguf import Metadata

    _, _, basename, finetune, _, _ = Metadata.get_model_id_components(repository)
    return basename, finetune


def own_sampling(folder: Path) -> dict[str, float]:
    """The sampling defaults of a model's generation_config.json, as the converter copies them.

    What is no number, or none that the key's type holds, is left out.
    """
    path = folder / "generation_config.json"
    stated: dict[str, Any] = read_json(path) if path.is_file() else {}
    named = {_GENERATION.get(key, key): value for key, value in stated.items()}
    numbers = {key: named[key] for key in SAMPLING if _is_number(named.get(key))}
    # JSON may have top_k as 20.0, which an integer key does not take
    return {key: int(value) if key in _WHOLE else value for key, value in numbers.items()}


def _is_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return -_LARGEST <= value <= _LARGEST


def _add_facts(writer: "GGUFWriter", description: Description) -> None:
    writer.add_name(description.name)
    if description.finetune is not None:
        writer.add_finetune(description.finetune)
    if description.basename is not None:
        writer.add_basename(description.basename)
    writer.add_size_label(description.size_label)
    description.license.add_to(writer)
    _add_origins(writer, description)


def _add_origins(writer: "GGUFWriter", description: Description) -> None:
    if description.base is not None:
        writer.add_base_model_count(1)
        _add_origin(writer, "base_model", 0, description.base)
    if description.datasets:
        writer.add_dataset_count(len(description.datasets))
    for number, dataset in enumerate(description.datasets):
        _add_origin(writer, "dataset", number, dataset)


def _add_origin(writer: "GGUFWriter", kind: str, number: int, origin: Origin) -> None:
    for key in ("name", "organization", "repo_url"):
        if (value := getattr(origin, key)) is not None:
            getattr(writer, f"add_{kind}_{key}")(number, value)
