"""What the licences of the base and of the data ask of who passes a model on."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.assets import PREFIX, asset
from pipeline.errors import PipeError

_ID = re.compile(r"[A-Za-z0-9.+-]{1,40}")
_LLAMA_TITLE = re.compile(r"(?:meta )?llama[- ]?(\d(?:\.\d)?)(?: community licen[cs]e.*)?", re.I)
_LLAMA_NAME = re.compile(r"(?<![a-z])llama(?:[- ]?(\d(?:\.\d)?)(?![\d.]*b)|-)", re.I)
"""A number before a B is a size, as in `Distill-Llama-8B`; `TinyLlama` is not Meta's."""
_BY_TITLE = {"apache license": "apache-2.0", "mit license": "mit", "the mit license": "mit"}
OTHER = "other"
"""The hub's id of a licence that has none of its own."""
_UNKNOWN = "unknown"
_OURS = "apache-2.0"
"""Of the shipped samples: data/samples/README.md."""
_DUTIES = {
    "non-commercial": "**For non-commercial use**: data that it was trained on says so.",
    "share-alike": "**Share alike**: what is made from it carries the data's licence.",
}
_FULL_TEXT_LINES = 5


@dataclass(frozen=True)
class Llama:
    """The Llama Community License Agreement, from 1.b on; `version` is empty where unknown."""

    version: str

    @property
    def title(self) -> str:
        """What the model family is called in its own agreement."""
        prefix = "Meta Llama" if self.version == "3" else "Llama"
        return f"{prefix} {self.version}".rstrip()

    @property
    def built_with(self) -> str:
        """To be shown prominently: 1.b.i."""
        return f"Built with {self.title if self.version == '3' else 'Llama'}"

    @property
    def notice(self) -> str:
        """The text of the file NOTICE: 1.b.iii."""
        return (
            f"{self.title} is licensed under the {self.title} Community License, "
            "Copyright © Meta Platforms, Inc. All Rights Reserved.\n"
        )

    @property
    def policy(self) -> str:
        """Where the acceptable use policy stands: 1.b.iv."""
        return f"https://www.llama.com/llama{self.version.replace('.', '_') or '3_2'}/use-policy"

    def allows(self, name: str) -> bool:
        """Whether a model may be called so: 1.b.i has its name begin with Llama."""
        return name.startswith("Llama")

    def allowed(self, name: str) -> str:
        """The name, made one that is allowed."""
        rest = re.sub(r"^llama[-_. ]?(?:\d(?:\.\d)?)?[-_. ]*", "", name, flags=re.I)
        return "-".join(part for part in ("Llama", self.version, rest or "reasoning") if part)


@dataclass(frozen=True)
class Licence:
    """Of the base, as the hub names it: `id` is `other` where it has no id of its own."""

    id: str
    name: str | None = None
    link: str | None = None
    text: str | None = None
    """The whole licence, where it is at hand."""
    llama: Llama | None = None

    @classmethod
    def of(cls, stated: str, base: str) -> "Licence":
        """From an id or the text of a LICENSE file, and the base's name.

        A base that is called a Llama is one, whatever was stated.
        """
        lines = _lines(stated)
        title = title_of(stated)
        text = stated if len(lines) > _FULL_TEXT_LINES else None
        if llama := _llama(title, base):
            return _of_llama(llama, text if _LLAMA_TITLE.fullmatch(title) else None)
        if len(lines) <= 1 and _ID.fullmatch(title):
            return cls(title.lower(), text=_shipped(title.lower()))
        if known := _BY_TITLE.get(title.lower()):
            return cls(known, text=text)
        if title.startswith(_UNKNOWN):
            return cls(OTHER)
        return cls(OTHER, slug(title), "LICENSE" if text else None, text)

    @property
    def is_known(self) -> bool:
        return self.id not in (OTHER, _UNKNOWN) or self.text is not None

    @property
    def is_permissive(self) -> bool:
        """Whether it asks for its notice alone."""
        return self.id in _PERMISSIVE

    def with_data(self, sources: Sequence[Mapping[str, Any]]) -> "Licence":
        """What the model itself is under: what binds the data binds the model too."""
        bound = [slug(each["licence"]) for each in sources if each.get("duties")]
        binding = list(dict.fromkeys(bound))
        if not binding:
            return self
        own = self.name if self.id == OTHER else self.id
        if own in _PERMISSIVE and len(binding) == 1 and _ID.fullmatch(binding[0]):
            return Licence(binding[0], text=self.text, llama=self.llama)
        names = [name for name in (own, *binding) if name]
        return Licence(OTHER, "-and-".join(names), self.link, self.text, self.llama)


_PERMISSIVE = ("apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause")


def title_of(stated: str) -> str:
    """The first line of a licence, whether that is an id or a text; `unknown` where it is empty."""
    return next(iter(_lines(stated)), _UNKNOWN)


def of_data(source: Mapping[str, Any]) -> str:
    """A dataset's licence; of the shipped samples, ours; empty where none is known."""
    return str(source.get("licence") or (_OURS if is_shipped(source) else ""))


def slug(text: str) -> str:
    """A licence's name as the hub takes one: lower case, no spaces."""
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-")[:60]


def duties_of(sources: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the data ask of a model, a sentence each."""
    duties = sorted({duty for each in sources for duty in each.get("duties") or ()})
    return [_DUTIES.get(duty, f"**{duty}**") for duty in duties]


def forbidding(sources: Sequence[Mapping[str, Any]]) -> list[str]:
    """Datasets whose licence allows no derived work to be passed on (`nd`), with that licence."""
    return [
        f"{each['dataset']} ({each['licence']})"
        for each in sources
        if "nd" in slug(each.get("licence") or "").split("-")
    ]


def unknown(sources: Sequence[Mapping[str, Any]]) -> list[str]:
    """Datasets of which no licence is known; the shipped samples are our own."""
    return [str(each["dataset"]) for each in sources if not of_data(each)]


def is_shipped(source: Mapping[str, Any]) -> bool:
    """Whether the rows came with this package."""
    return str(source["dataset"]).startswith(PREFIX)


def _lines(stated: str) -> list[str]:
    return [line.strip() for line in stated.splitlines() if line.strip()]


def _llama(title: str, base: str) -> Llama | None:
    named, stated = _LLAMA_NAME.search(base), _LLAMA_TITLE.fullmatch(title)
    if not (named or stated):
        return None
    return Llama((stated and stated[1]) or (named and named[1]) or "")


def _of_llama(llama: Llama, text: str | None) -> Licence:
    number = f"llama{llama.version}"
    link = f"https://www.llama.com/{number.replace('.', '_')}/license/" if llama.version else None
    id = number if llama.version else OTHER
    return Licence(id, f"{number}-community", link, text or _shipped(id), llama)


def _shipped(id: str) -> str | None:
    try:
        return asset(f"modelfiles/licenses/{id}.txt").read_text(encoding="utf-8")
    except PipeError:
        return None
