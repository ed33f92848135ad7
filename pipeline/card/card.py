"""README.md of a model: what it is, how it is run, what it owes to whom, what was measured."""

from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import StrictUndefined
from jinja2.sandbox import ImmutableSandboxedEnvironment

from pipeline.assets import asset
from pipeline.card.licences import Licence, duties_of, of_data
from pipeline.card.markdown import fenced, plain
from pipeline.card.metadata import front_matter
from pipeline.card.public import public_name, public_text
from pipeline.card.results import gates_told, scores, tables
from pipeline.card.subject import Publication, Subject
from pipeline.chat import ChatFormat
from pipeline.recipe import Recipe

_METHODS = {"qlora": "QLoRA", "lora": "LoRA", "lora-8bit": "LoRA on 8 bits", "full": "all weights"}


def model_card(
    recipe: Recipe,
    format: ChatFormat,
    license: str,
    sources: Sequence[Mapping[str, Any]],
    published: Publication | None = None,
) -> str:
    """The card as Markdown; the same run gives the same bytes.

    `license` is an id or a licence's whole text. `sources` are the data manifest's facts, each with
    `dataset`, `rows` and, where the registry knows them, `licence` and `duties`. A local file has
    no id that the hub could link to, and its folder is told to no one.
    """
    subject = Subject(recipe, sources, published)
    licence = licence_of(subject, license)
    measured = published.measured if published else None
    engines = _engines(subject)
    text: str = _template().render(
        front=front_matter(subject, licence, scores(measured, engines) if measured else ()),
        subject=subject,
        format=format,
        licence=licence,
        llama=licence.llama,
        sources=[_row(each) for each in sources],
        duties=duties_of(sources),
        published=published,
        tables=tables(measured) if measured else [],
        gates=gates_told(published.gates) if published and published.gates else [],
        training=_training(recipe, published.trained) if published else "",
    )
    return text


def licence_of(subject: Subject, license: str) -> Licence:
    """What the model is under: the base's licence and what binds the data."""
    return Licence.of(license, subject.base_title).with_data(subject.sources)


def _template() -> Any:
    environment = ImmutableSandboxedEnvironment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    environment.filters |= {"plain": plain, "fenced": fenced}
    return environment.from_string(
        asset("modelfiles/card.md.jinja").read_text(encoding="utf-8"),
    )


def _row(source: Mapping[str, Any]) -> dict[str, str]:
    revision = source.get("revision")
    return {
        "dataset": public_name(source["dataset"], on_hub=bool(revision)),
        "config": source.get("config") or "",
        "link": f"https://huggingface.co/datasets/{source['dataset']}" if revision else "",
        "rows": f"{source['rows']:,}",
        "licence": of_data(source) or "not known",
        "duties": ", ".join(source.get("duties") or ()) or "–",
    }


def _engines(subject: Subject) -> list[str]:
    """The engines of `pipe eval` that are what the repository holds."""
    if subject.published is None:
        return []
    tuned = [] if subject.form == "gguf" else ["adapter"]
    return [*tuned, *subject.published.types]


def _training(recipe: Recipe, facts: Mapping[str, Any]) -> str:
    """What really ran, in one paragraph; what a manifest does not say is left out."""
    method, lora = facts.get("method", recipe.train.method), recipe.train.lora
    ranks = "" if method == "full" else f", r = {lora.r}, alpha = {lora.alpha}"
    said = [f"{_METHODS.get(method, method)}{ranks}, {facts['steps']:,} steps"]
    if total := facts.get("total_parameters"):
        share = facts["trainable_parameters"] / total
        said.append(f"{facts['trainable_parameters']:,} of {total:,} parameters ({share:.1%})")
    said.append(f"on {_device(facts)}")
    losses = [("final loss", "final_loss"), ("loss on rows that steer", "eval_loss")]
    said += [f"{name} {facts[key]:.3g}" for name, key in losses if facts.get(key) is not None]
    before, after = (facts.get(f"general_loss_{when}") for when in ("before", "after"))
    if before is not None and after is not None:
        said.append(f"loss on rows of the base's own kind {before:.3g} before, {after:.3g} after")
    return f"{'; '.join(said)}."


def _device(facts: Mapping[str, Any]) -> str:
    device = "a CPU" if facts["device"] == "cpu" else public_text(str(facts["device"]))
    return f"{device} in {facts['precision']}"
