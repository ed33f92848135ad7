"""README.md beside the GGUFs: the base, the data, and what whoever uses the model must keep to."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import StrictUndefined
from jinja2.sandbox import ImmutableSandboxedEnvironment

from pipeline.assets import asset
from pipeline.chat import ChatFormat
from pipeline.recipe import Recipe

_SPDX = re.compile(r"[A-Za-z0-9.+-]{1,40}")
_DUTIES = {
    "non-commercial": "**For non-commercial use**: data that it was trained on says so.",
    "share-alike": "**Share alike**: what is made from it carries the data's licence.",
}


def model_card(
    recipe: Recipe, format: ChatFormat, license: str, sources: Sequence[Mapping[str, Any]]
) -> str:
    """The card as Markdown.

    `sources` are the data manifest's facts, each with `dataset`, `rows` and, where the registry
    knows them, `licence` and `duties`. A local file has no id that the hub could link to.
    """
    duties = sorted({duty for each in sources for duty in each.get("duties", ())})
    shown = [
        {
            "dataset": each["dataset"],
            "config": each.get("config"),
            "rows": f"{each['rows']:,}",
            "licence": each.get("licence") or "not known",
            "duties": ", ".join(each.get("duties", ())) or "-",
        }
        for each in sources
    ]
    source = asset("modelfiles/card.md.jinja").read_text(encoding="utf-8")
    environment = ImmutableSandboxedEnvironment(
        undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True
    )
    return environment.from_string(source).render(
        base=recipe.model.base,
        name=recipe.serve.name,
        format=format.name,
        note=format.note,
        license=license if _SPDX.fullmatch(license) else "other",
        sources=shown,
        datasets=[each for each in sources if each.get("revision")],
        duties=[_DUTIES.get(duty, f"**{duty}**") for duty in duties],
    )
