"""The pretraining text of the tiny base.

Plain problems with direct answers, equations and much copying. The string `<think>` never occurs,
and no document reasons step by step: that is what the tuning has to add. No story holds the numbers
and operations of a test row.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from make_samples import HIGHEST, ITEMS, LARGEST_CHANGE, LOWEST, NAMES, Key, Story, draw_story

BOS, EOS, PAD = "<|begin_of_text|>", "<|end_of_text|>", "<|finetune_right_pad_id|>"
START_HEADER, END_HEADER = "<|start_header_id|>", "<|end_header_id|>"
EOM, EOT = "<|eom_id|>", "<|eot_id|>"
SPECIAL_TOKENS = (BOS, EOS, START_HEADER, END_HEADER, EOM, EOT, PAD)

SYSTEM_MESSAGES = (
    "You are a helpful assistant.",
    "You are a helpful assistant. Answer in one sentence.",
    "Answer the question.",
    "You help with numbers.",
)
# fmt: off
WORDS = (
    "think", "and", "so", "the", "result", "is", "left", "now", "first", "then", "list", "note",
    "sum", "more", "less", "one", "two", "yes", "no", "has", "have", "owns", "finds", "loses",
)
# fmt: on
TAGS = ("list", "note", "copy", "sum", "text")
COPY_ASKS = ("Repeat this text.", "Copy the text.", "Write this again.", "Say the same.")
LIST_ASKS = ("List the numbers.", "Which numbers are in the text?", "Write all the numbers.")
SUM_ASKS = ("Write this as a sum.", "Write the sum for this text.", "Which sum is this?")

Turn = tuple[str, str]
TurnMaker = Callable[[random.Random], Turn]


def header(role: str) -> str:
    """The Llama 3 header of one message."""
    return f"{START_HEADER}{role}{END_HEADER}\n\n"


def chat_text(turns: list[Turn], system: str | None = None) -> str:
    """A conversation in the Llama 3 layout."""
    parts = [BOS]
    if system is not None:
        parts.append(f"{header('system')}{system}{EOT}")
    for question, answer in turns:
        parts.append(f"{header('user')}{question}{EOT}{header('assistant')}{answer}{EOT}")
    return "".join(parts)


def equation(rng: random.Random, start: int | None = None) -> tuple[str, int]:
    """A sum such as "42+6" with its result: a change of at most 9, the total in 1..99."""
    before = rng.randint(LOWEST, HIGHEST) if start is None else start
    change = rng.choice((-1, 1)) * rng.randint(1, LARGEST_CHANGE)
    if not LOWEST <= before + change <= HIGHEST:
        return equation(rng, start)
    return f"{before}{'+' if change > 0 else '-'}{abs(change)}", before + change


def random_words(rng: random.Random) -> str:
    """Words and numbers in random order, joined in one of several ways.

    Half of them are mostly words and spaces. There the word before says which comes next, which is
    the copying that is learned first; elsewhere the token before is always the separator.
    """
    easy = rng.random() < 0.5
    pool = (*NAMES, *ITEMS, *WORDS)
    pieces = [
        str(rng.randint(1, 99)) if rng.random() < (0.1 if easy else 0.5) else rng.choice(pool)
        for _ in range(rng.randint(2, 16))
    ]
    separator = " " if easy else rng.choice((" ", ", ", "\n", ": ", " + ", " = "))
    return separator.join(pieces)


class Corpus:
    """Draws pretraining documents of each kind."""

    def __init__(self, rng: random.Random, exclude: frozenset[Key]) -> None:
        """Draw from `rng`, and no story whose key is in `exclude`."""
        self.rng = rng
        self.exclude = exclude
        # The shares of the tokens, not of the documents.
        self.kinds: dict[str, tuple[float, Callable[[], str]]] = {
            "equations": (0.20, self.equations),
            "sums as chat": (0.08, lambda: self.chat(self.sum_turn)),
            "copying random words": (0.12, lambda: self.chat(self.copy_words_turn)),
            "repeating sentences": (0.24, lambda: self.chat(self.copy_story_turn)),
            "listing numbers": (0.08, lambda: self.chat(self.list_numbers_turn)),
            "writing a text as a sum": (0.10, lambda: self.chat(self.as_sum_turn)),
            "stories": (0.02, self.plain_story),
            "question and answer text": (0.02, self.plain_question),
            "word problems": (0.14, lambda: self.chat(self.problem_turn)),
        }

    def story(self, weights: tuple[int, int, int] = (1, 1, 1)) -> Story:
        """A story with one to three changes, in these proportions."""
        changes = self.rng.choices((1, 2, 3), weights)[0]
        return draw_story(self.rng, changes, self.exclude)

    def chat(self, make_turn: Callable[[], Turn]) -> str:
        """One or two turns of a kind, some with a system message."""
        turns = [make_turn() for _ in range(1 if self.rng.random() < 0.85 else 2)]
        system = self.rng.choice(SYSTEM_MESSAGES) if self.rng.random() < 0.2 else None
        return chat_text(turns, system)

    def equations(self) -> str:
        """Lines such as "42+6=48"; in half of the texts each goes on from the last result."""
        chained, result = self.rng.random() < 0.5, None
        lines = []
        for _ in range(self.rng.randint(4, 16)):
            sum_, result = equation(self.rng, result if chained else None)
            lines.append(f"{sum_}={result}")
        return BOS + "\n".join(lines) + EOS

    def sum_turn(self) -> Turn:
        """One sum, or a few; the answer is the number, a sentence or the equation."""
        if self.rng.random() < 0.4:
            pairs = [equation(self.rng) for _ in range(self.rng.randint(2, 5))]
            asked = "\n".join(sum_ for sum_, _ in pairs)
            return asked, "\n".join(f"{sum_}={result}" for sum_, result in pairs)
        sum_, result = equation(self.rng)
        asked = self.rng.choice(("What is {}?", "{}=", "How much is {}?")).format(sum_)
        return asked, self.rng.choice((f"{result}", f"{sum_}={result}", f"The result is {result}."))

    def copied(self, text: str) -> Turn:
        """A request to repeat `text`: bare, between tags, or with tags to be written."""
        ask, tag, form = self.rng.choice(COPY_ASKS), self.rng.choice(TAGS), self.rng.random()
        if form < 0.6:
            return f"{ask}\n{text}", text
        if form < 0.8:
            return f"<{tag}>\n{text}\n</{tag}>\n\n{ask}", text
        return f"Write this in <{tag}> tags.\n{text}", f"<{tag}>\n{text}\n</{tag}>"

    def copy_words_turn(self) -> Turn:
        """Copying random words and numbers, which only copying can predict."""
        return self.copied(random_words(self.rng))

    def copy_story_turn(self) -> Turn:
        """Repeating a sentence or a story; as one line, or one sentence a line."""
        sentences = self.story().sentences()
        if self.rng.random() < 0.4:
            return self.copied(self.rng.choice(sentences))
        if self.rng.random() < 0.5:
            return self.copied(" ".join(sentences))
        ask = self.rng.choice(("Write one sentence a line.", "Put each sentence on a line."))
        return f"{ask}\n{' '.join(sentences)}", "\n".join(sentences)

    def list_numbers_turn(self) -> Turn:
        """Listing the numbers of a story, in order."""
        story = self.story()
        numbers = ", ".join(str(abs(number)) for number in story.key)
        return f"{self.rng.choice(LIST_ASKS)}\n{' '.join(story.sentences())}", numbers

    def as_sum_turn(self) -> Turn:
        """Writing a story as a sum such as "42+6-5", not computed."""
        story = self.story()
        signs = "".join(f"{'+' if step > 0 else '-'}{abs(step)}" for step in story.changes)
        ask = self.rng.choice(SUM_ASKS)
        return f"{ask}\n{' '.join(story.sentences())}", f"{story.start}{signs}"

    def problem_turn(self) -> Turn:
        """A word problem answered directly in one sentence; mostly one change."""
        story = self.story((8, 1, 1))
        return story.problem(), story.answer()

    def plain_story(self) -> str:
        """A story outside any chat."""
        return f"{BOS}{' '.join(self.story().sentences())}{EOS}"

    def plain_question(self) -> str:
        """A problem and its direct answer as plain text."""
        story = self.story((8, 1, 1))
        return f"{BOS}Question: {story.problem()}\nAnswer: {story.answer()}{EOS}"

    def documents(self, count_tokens: Callable[[str], int]) -> Iterator[str]:
        """Documents without end: each time one of the kind furthest below its share."""
        drawn = dict.fromkeys(self.kinds, 0)
        while True:
            kind = min(self.kinds, key=lambda name: drawn[name] / self.kinds[name][0])
            document = self.kinds[kind][1]()
            if "<think>" in document:
                raise ValueError(f"reasoning tag in the pretraining text: {document!r}")
            drawn[kind] += count_tokens(document)
            yield document
