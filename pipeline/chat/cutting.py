"""Where a text may be cut so that what remains reads well."""

import re

_NEAR = 200
"""Characters, some two lines: so far before a cut its line's or sentence's end is looked for."""

_SENTENCE_END = re.compile(r"[.!?][\"')\]]*(?=\s)|[。！？]")


def cut_before(text: str, end: int) -> int:
    """Where a line or sentence ends at `end` or near before it, else `end`."""
    start = max(0, end - _NEAR)
    line = text.rfind("\n", start, end + 1)
    if line > 0:
        return line
    sentences = [match.end() for match in _SENTENCE_END.finditer(text, start, end + 1)]
    return max((place for place in sentences if place <= end), default=end)
