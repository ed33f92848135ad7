"""What every section of a recipe has in common, and texts that are spelled by a rule."""

import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _spelled(pattern: str, rule: str) -> AfterValidator:
    """Text that is all of this pattern; the error for another is the rule in words."""

    def check(text: str) -> str:
        if re.fullmatch(pattern, text) is None:
            raise ValueError(rule)  # not the text: a URL may hold a password
        return text

    return AfterValidator(check)


FolderName = Annotated[
    str,
    _spelled(
        r"[A-Za-z0-9_][A-Za-z0-9_.-]*",
        "use letters, digits, `.`, `_` and `-`, and no `.` or `-` first",
    ),
]
ModelName = Annotated[
    str,
    _spelled(
        r"([A-Za-z0-9_][A-Za-z0-9_-]{0,79}/)?[A-Za-z0-9_][\w.-]{0,79}",
        "use up to 80 letters, digits, `.`, `_` and `-`, and no `.` or `-` first; an owner and "
        "`/` may stand before it",
    ),
]
Url = Annotated[
    str, _spelled(r"https?://[^@\s]+", "begin it with http:// or https://, without user or space")
]
VariableName = Annotated[
    str, _spelled(r"[A-Za-z_][A-Za-z0-9_]*", "use letters, digits and `_`, and no digit first")
]
