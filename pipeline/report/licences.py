"""What the licences of the base and of the data ask of who passes the model on."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.card.licences import Licence, of_data, title_of
from pipeline.report.view import RunView
from pipeline.report.words import listed

_DATA: dict[str, str] = {
    "non-commercial": "not for commercial use.",
    "share-alike": "passed on under the data's own licence only.",
}
_LLAMA = (
    "show “Built with Llama”, begin the model's name with “Llama”, pass on a copy of the licence, "
    "and keep to Meta's acceptable use policy."
)
"""Llama 3.2 Community License Agreement, section 1.b."""


@dataclass(frozen=True)
class Duty:
    of: str
    """The base or a dataset."""
    licence: str
    """Empty where it is not known."""
    text: str
    binds: bool
    """True for more than keeping a notice."""


def duties_of(view: RunView) -> list[Duty]:
    """The base's first, then those of each dataset that training rows came from."""
    found = [_of_base(view)] if "export" in view.manifests else []
    return found + [_of_data(source) for source in view.facts("data").get("sources", ())]


def _of_base(view: RunView) -> Duty:
    stated = str(view.facts("export").get("license", ""))
    base = str(view.recipe.get("model", {}).get("base", ""))
    known, name, of = Licence.of(stated, base), title_of(stated)[:80], f"base {base}"
    if known.llama:
        return Duty(of, f"{known.llama.title} Community License", _LLAMA, True)
    if not known.is_known and not known.name:
        return Duty(of, "", "the licence is not known: read the base's card.", True)
    if known.is_permissive:
        return Duty(of, name, "keep the licence and its notices.", False)
    return Duty(of, name, "read the licence, its duties are not known here.", True)


def _of_data(source: Mapping[str, Any]) -> Duty:
    of = " ".join(filter(None, (source["dataset"], source.get("config"))))
    licence, duties = of_data(source), list(source.get("duties") or ())
    texts = [_DATA.get(duty, f"{duty}.") for duty in duties]
    if licence.startswith("cc-by"):
        texts.append("name who made it.")
    if not licence:
        return Duty(of, "", "the licence is not known here.", False)
    return Duty(of, licence, " ".join(texts) or "no duties known.", bool(duties))


def told(view: RunView) -> str:
    """One sentence for each licence that binds or is not known, after what it is of."""
    by_text: dict[str, list[str]] = {}
    for duty in duties_of(view):
        if duty.binds or not duty.licence:
            by_text.setdefault(duty.text, []).append(duty.of)
    if not by_text:
        return "No licence asks for more than its notice."
    return " ".join(f"{listed(names)}: {text}" for text, names in by_text.items())
