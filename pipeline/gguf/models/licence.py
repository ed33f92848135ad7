"""A licence in a file's metadata: an SPDX id where there is one, else a name and a link."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.card.licences import OTHER, Licence, title_of

if TYPE_CHECKING:
    from gguf import GGUFWriter

_SPDX = (
    "Apache-2.0", "MIT", "BSD-2-Clause", "BSD-3-Clause", "CC0-1.0", "CC-BY-4.0", "CC-BY-SA-4.0",
    "CC-BY-NC-4.0", "CC-BY-NC-SA-4.0", "CC-BY-ND-4.0", "GPL-3.0", "AGPL-3.0", "LGPL-3.0",
    "MPL-2.0", "OpenRAIL", "Unlicense", "ISC", "Zlib", "WTFPL",
)  # fmt: skip
_BY_HUB_ID = {each.lower(): each for each in _SPDX}


@dataclass(frozen=True)
class License:
    """`id` is SPDX's, or the hub's where SPDX has none (llama3.2, other)."""

    id: str
    name: str | None = None
    link: str | None = None

    @classmethod
    def of(cls, text: str) -> "License":
        """From an id as model cards give it, or from the text of a LICENSE file.

        A text that is not recognised is `other`, named by its first line.
        """
        known = Licence.of(text, base="")
        if known.llama:
            return cls(known.id, f"{known.llama.title} Community License Agreement", known.link)
        if known.id == OTHER:
            return cls(OTHER, title_of(text)[:80])
        return cls(_BY_HUB_ID.get(known.id, known.id))

    def add_to(self, writer: "GGUFWriter") -> None:
        """general.license, and its name and link where it has any."""
        writer.add_license(self.id)
        if self.name is not None:
            writer.add_license_name(self.name)
        if self.link is not None:
            writer.add_license_link(self.link)
