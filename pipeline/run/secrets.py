"""Takes out of a text what lets another in, before it is said or written."""

import os
import re

_GIVEN = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "WANDB_API_KEY")
"""Variables that hold one, whatever it looks like; their names are said instead."""
_SECRETS = (
    (re.compile(r"\bhf_\w{8,}"), "HF_TOKEN"),
    (
        re.compile(r"\b(?:sk|glpat|xox[a-z])-[\w-]{16,}|\b(?:gh[a-z]|github_pat)_\w{16,}"),
        "[removed]",
    ),
    (re.compile(r"\b(Basic|Bearer) [\w.~+/=-]{8,}"), r"\1 HF_TOKEN"),
    (re.compile(r"(?<=://)[^/\s@]+@"), ""),
    (re.compile(r"(https?://[^\s?'\"]+)\?[^\s'\"]*"), r"\1"),
)
"""What lets another in, and what is said instead: a token by how its maker begins it (the hub;
OpenAI, GitLab, Slack, GitHub), a header with one, a name and password in a URL, a URL's query, by
which a signed one is good for all."""


def harmless(text: str) -> str:
    """The text without secrets, which a mirror's error may send back."""
    for name in _GIVEN:
        if given := os.environ.get(name):
            text = text.replace(given, name)
    for pattern, instead in _SECRETS:
        text = pattern.sub(instead, text)
    return text
