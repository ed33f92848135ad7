"""A licence in a file's metadata: an SPDX id where there is one, else a name and a link."""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gguf import GGUFWriter

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+-]{0,39}")
_LLAMA = re.compile(r"llama[- ]?(\d(?:\.\d)?)(?: community licen[cs]e agreement)?", re.IGNORECASE)
_SPDX = (
    "Apache-2.0", "MIT", "BSD-2-Clause", "BSD-3-Clause", "CC0-1.0", "CC-BY-4.0", "CC-BY-SA-4.0",
    "CC-BY-NC-4.0", "CC-BY-NC-SA-4.0", "CC-BY-ND-4.0", "GPL-3.0", "AGPL-3.0", "LGPL-3.0",
    "MPL-2.0", "OpenRAIL", "Unlicense", "ISC", "Zlib", "WTFPL",
)  # fmt: skip
_BY_HUB_ID = {each.lower(): each for each in _SPDX}
_BY_TITLE = {"apache license": "Apache-2.0", "mit license": "MIT", "the mit license": "MIT"}


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
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        title = lines[0] if lines else "unknown"
        if version := _LLAMA.fullmatch(title):
            return _llama(version[1])
        if len(lines) <= 1 and _ID.fullmatch(title):
            return cls(_BY_HUB_ID.get(title.lower(), title))
        if known := _BY_TITLE.get(title.lower()):
            return cls(known)
        return cls("other", title[:80])

    def add_to(self, writer: "GGUFWriter") -> None:
        """general.license, and its name and link where it has any."""
        writer.add_license(self.id)
        if self.name is not None:
            writer.add_license_name(self.name)
        if self.link is not None:
            writer.add_license_link(self.link)


def _llama(version: str) -> License:
    return License(
        f"llama{version}",
        f"Llama {version} Community License Agreement",
        f"https://www.llama.com/llama{version.replace('.', '_')}/license/",
    )
