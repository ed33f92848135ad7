"""Text of models and datasets that is to be seen, not obeyed."""

import re
from typing import Any

from markupsafe import Markup

_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]"
)
"""Control characters, and those that turn the direction of what follows."""
_SURROGATE = re.compile("[\ud800-\udfff]")


def visible(value: Any) -> Any:
    """A text whose control characters are seen instead of obeyed; anything else as it is."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    value = _HIDDEN.sub(_picture, value.replace("\r\n", "\n"))
    return _SURROGATE.sub("\ufffd", value)


def _picture(found: re.Match[str]) -> str:
    code = ord(found[0])
    if code < 0x20:
        return chr(0x2400 + code)
    return "\u2421" if code == 0x7F else f"[U+{code:04X}]"
