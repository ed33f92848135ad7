"""Texts that tokenizers join, split or strip, and attacks that spell control tokens."""

import json
import random
import re
import unicodedata

from hypothesis import strategies as st

from pipeline.chat import chat_format
from tests.support.tokenizer import SPECIALS

FORMAT = chat_format("llama3.2-reasoning")
CONTROL = re.compile(r"<\|[a-z_0-9]+\|>")

# pieces that tokenizers join, split or strip
SPACES = [" ", "  ", "\n", "\n\n", "\r\n", "\t", "\x85", "\x1c", "\u00a0", "\u2028", "\u200b"]
JOINED = [".", "!\n", "...", "'s", "12345", "<", ">", "<|", "|>", ">\n", "think", "user"]
TAGS = ["<think>", "</think>", "{{ x }}", "{%"]
UNICODE = ["\ufeff", "e\u0301", "é", "中文", "🙂", "👩\u200d🚀", "\0"]
FRAGMENTS = st.sampled_from([*SPACES, *JOINED, *TAGS, *UNICODE])
TEXTS = st.lists(FRAGMENTS | st.text(max_size=8), max_size=12).map("".join)
PLAIN = TEXTS.filter(lambda text: not CONTROL.search(text))
REASONING = st.none() | PLAIN
SYSTEM = st.none() | PLAIN
ROLES = st.sampled_from(["system", "user", "assistant"])


def attacks(names):
    """Texts that spell some of the tokens, whole, in halves or cut off, among others."""
    halves = st.sampled_from(names).flatmap(
        lambda name: st.integers(0, len(name)).map(lambda cut: (name[:cut], name[cut:]))
    )
    parts = st.sampled_from(names) | halves.map("".join) | halves.map(lambda half: half[0])
    return st.lists(parts | TEXTS, max_size=8).map("".join)


def spelling_none(names):
    """Texts that spell none of the tokens, in whatever Unicode form."""
    spelled = re.compile("|".join(map(re.escape, names)))
    return TEXTS.filter(lambda text: not spelled.search(unicodedata.normalize("NFC", text)))


def messages(content):
    """Conversations of some turns, in any order of roles."""
    turn = st.fixed_dictionaries({"role": ROLES, "content": content})
    return st.lists(turn, min_size=1, max_size=5)


def completed(text, seed=0):
    """The tokenizer with every split of every token among its merges, as Llama 3's has them."""
    description = json.loads(text)
    vocabulary = description["model"]["vocab"]
    splits = [(token[:cut], token[cut:]) for token in vocabulary for cut in range(1, len(token))]
    merges = [list(pair) for pair in splits if vocabulary.keys() >= set(pair)]
    random.Random(seed).shuffle(merges)
    description["model"]["merges"] = sorted(merges, key=lambda pair: vocabulary["".join(pair)])
    return json.dumps(description)


def conversation(question, system=None):
    head = [{"role": "system", "content": system}] if system else []
    return [*head, {"role": "user", "content": question}]


def write(folder, text):
    """tokenizer.json of this text."""
    path = folder / "tokenizer.json"
    path.write_text(text, encoding="utf-8")
    return path


ATTACKS = attacks(SPECIALS)
MESSAGES = messages(TEXTS | ATTACKS)
ASKED = MESSAGES.filter(lambda messages: messages[-1]["role"] != "assistant")
