"""The card's YAML, in the keys that the hub knows (huggingface_hub's ModelCardData)."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pipeline.card.licences import Licence
from pipeline.card.results import Score
from pipeline.card.subject import Subject

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

_TASK = "text-generation"
_FORMS = {
    "adapter": ("peft", "adapter", ["lora"]),
    "model": ("transformers", "finetune", []),
    "gguf": ("gguf", "quantized", []),
}
"""What the repository holds -> library_name, base_model_relation, tags of its own."""


def front_matter(subject: Subject, licence: Licence, scores: Sequence[Score]) -> str:
    """The YAML without its `---`; keys in one order, so that the same run gives the same bytes."""
    from huggingface_hub import ModelCardData

    library, relation, tags = _FORMS[subject.form]
    kinds = ["gguf", "ollama"] if subject.has_gguf else []
    values: dict[str, Any] = {
        "base_model": subject.base_id,
        "datasets": subject.datasets or None,
        "language": subject.languages or None,
        "library_name": library,
        "license": licence.id,
        "license_name": licence.name,
        "license_link": licence.link,
        "pipeline_tag": _TASK,
        "tags": ["reasoning", *tags, *kinds],
        "model_name": subject.name if scores else None,
        "eval_results": [_result(each) for each in scores] or None,
    }
    if subject.base_id:
        values["base_model_relation"] = relation
    return str(ModelCardData(**values).to_yaml())


def _result(score: Score) -> "EvalResult":
    from huggingface_hub import EvalResult

    return EvalResult(
        task_type=_TASK,
        dataset_type=score.dataset,
        dataset_name=score.task,
        metric_type=score.metric,
        metric_value=score.value,
        metric_name=score.label,
    )
