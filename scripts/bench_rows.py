"""R1-like rows for scripts/bench_prepare.py, the same on every run, with planted faults.

python scripts/bench_rows.py --rows 20000 --out rows

The columns are R1-Distill-SFT v0's. The English comes from the docstrings of three installed
packages (sympy, networkx, numpy: some 14,000 sentences), read where they lie; numbers, LaTeX,
lists and code are made up. The same versions of them, by uv.lock, give the same bytes.
"""

import argparse
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from random import Random
from typing import Any

SEED = 3407
PACKAGES = ("sympy", "networkx", "numpy")
MEDIAN, SIGMA, SHORTEST, LONGEST = 2450, 0.55, 470, 5450
"""Of the rows' lengths in tokens: a log-normal, cut at both ends."""
CHARACTERS = 3.75
"""To a token of Llama 3, in these texts."""
KINDS = ("exact", "near", "contaminated", "refuted")
BENCHMARK, TEST = 500, 200
"""Questions that decontamination holds against the rows."""

_SENTENCE = re.compile(r"[A-Z](?:[A-Za-z ,;'()]|-(?!-))+\.")
_TURNS = (
    "Wait, ", "Hmm, ", "So, ", "Okay, ", "Alternatively, ", "But then, ", "Let me think again. ",
    "Actually, ", "First, ", "Now, ", "Therefore, ", "Let me double-check. ", "Right, ",
)  # fmt: skip
_UNICODE = (
    "x² + y² ≤ r²", "π ≈ 3.14159", "α → β", "∑ aᵢ", "√2 is irrational", "naïve Bayes", "90°",
    "Erdős–Rényi", "a ∈ ℝ", "“quoted”", "5 × 4 ÷ 2", "Poincaré’s", "✓", "Δt ≠ 0", "½", "…",
    "中国剩余定理",
)  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """What row number `index` is; `original` is the row that it repeats."""

    kind: str
    original: int | None = None


def plan(index: int) -> Plan:
    """1% exact and 1% near-duplicates, 0.5% contaminated, 0.5% with a wrong answer."""
    block, place = divmod(index, 100)
    if place == 50:
        return Plan("exact", block // 2 * 100 + 13)
    if place == 70:
        return Plan("near", block // 2 * 100 + 21)
    if place == 90:
        return Plan("refuted" if block % 2 else "contaminated")
    return Plan("plain")


def planted(rows: int) -> dict[str, list[list[str]]]:
    """Groups of row ids by what is wrong with them; all but one of a group's rows must go.

    A row that must go by itself is in a group with "".
    """
    groups: dict[str, dict[int, list[str]]] = {kind: {} for kind in KINDS}
    for index in range(rows):
        what = plan(index)
        if what.kind in groups:
            alone = what.original is None
            first, key = ("", index) if alone else (_id(what.original or 0), what.original or 0)
            groups[what.kind].setdefault(key, [first]).append(_id(index))
    return {kind: list(found.values()) for kind, found in groups.items()}


class Writer:
    """Makes rows and questions from sentences and their words."""

    def __init__(self) -> None:
        found = {s for name in PACKAGES for s in _sentences(name)}
        self._sentences = sorted(found)
        text = " ".join(self._sentences)
        self._words = sorted(set(re.findall(r"\b(?:the|an|a) ([a-z]{4,})\b", text)))
        kinds: list[tuple[int, Callable[[Random], str]]] = [
            (9, self._prose), (8, self._sums), (7, self._latex), (2, self._list),
            (2, self._code), (2, self._symbols),
        ]  # fmt: skip
        self._kinds = [kind for weight, kind in kinds for _ in range(weight)]

    def row(self, index: int) -> dict[str, Any]:
        """One record in R1-Distill-SFT v0's columns."""
        what = plan(index)
        draw = Random(f"{SEED}:row:{index if what.kind != 'exact' else what.original}")
        value = draw.randrange(2, 10**6)
        length = MEDIAN * draw.lognormvariate(0.0, SIGMA)
        reply = self._reply(draw, min(max(length, SHORTEST), LONGEST), value)
        return {
            "id": _id(index),
            "problem": self._problem(index, what),
            "reannotated_assistant_content": reply,
            "source": "synthetic_math",
            "solution": str(value + 1 if what.kind == "refuted" else value),
            "verified": None,
            "quality_metrics": None,
        }

    def question(self, name: str) -> str:
        """60 to 140 words; no eight in a row without three that are drawn."""
        draw = Random(f"{SEED}:question:{name}")
        return " ".join(self._asked(draw) for _ in range(draw.randint(5, 9)))

    def _problem(self, index: int, what: Plan) -> str:
        question = self.question(f"row-{index if what.original is None else what.original}")
        if what.kind == "exact" and index // 100 % 2:
            return f"  {question.upper()}\n"
        if what.kind == "near":
            return f"{question.rstrip('.').rsplit(' ', 1)[0]} {self._word(Random(index))}."
        if what.kind == "contaminated":
            number = index // 200
            known = f"test-{number % TEST}" if number % 2 else f"benchmark-{number % BENCHMARK}"
            return f"Here is a known problem. {self.question(known)} Show every step."
        return question

    def _asked(self, draw: Random) -> str:
        form = draw.choice(
            (
                "Every {} {} of the {} takes {n} {} from {} {}.",
                "If a {} {} has {n} {}, how many {} does {} {} need?",
                "The {} {} splits {n} {} between {} and {} {}.",
                "Then {} {} give {n} {} to each {} of {} {}.",
                "Let {} {} be {n} times the {} {} over {} {}.",
                "Find what the {} {} of {n} {} costs {} {}.",
            )
        )
        return form.format(*(self._word(draw) for _ in range(7)), n=draw.randrange(2, 10**4))

    def _reply(self, draw: Random, tokens: float, value: int) -> str:
        parts: list[str] = []
        size, wanted = 0, tokens * CHARACTERS
        while size < wanted:
            parts.append(draw.choice(self._kinds)(draw))
            size += len(parts[-1]) + 2
        cut = max(1, len(parts) * 4 // 5)
        reasoning, answer = "\n\n".join(parts[:cut]), "\n\n".join(parts[cut:])
        return (
            f"<think>\n{reasoning}\n</think>\n\n{answer}\n\nThe final answer is \\boxed{{{value}}}."
        )

    def _prose(self, draw: Random) -> str:
        sentences = draw.sample(self._sentences, draw.randint(2, 5))
        return " ".join(_turned(draw, sentence) for sentence in sentences)

    def _sums(self, draw: Random) -> str:
        a, b, c = draw.randrange(3, 999), draw.randrange(3, 99), draw.randrange(3, 9999)
        one, other = self._word(draw), self._word(draw)
        return draw.choice(_TURNS) + draw.choice(
            (
                f"the {one} is {a} * {b} = {a * b}, and with {c} more {other} it is {a * b + c}.",
                f"{a}/{b} ≈ {a / b:.4f}, so the {one} cannot be {c}; that {other} is too large.",
                f"if {one} = {c}, then {c} - {a} = {c - a}. Is {c - a} a {other}? {c % b} is left.",
                f"{c:,} {one} at ${b}.{a % 100:02d} each make ${c * (b + a % 100 / 100):,.2f}.",
            )
        )

    def _latex(self, draw: Random) -> str:
        a, b, n = draw.randrange(2, 99), draw.randrange(2, 999), draw.randrange(2, 30)
        x, y = draw.sample("abkmnpqrtuvwxyz", 2)
        word = self._word(draw)
        return draw.choice(
            (
                f"\\[\n\\frac{{{a}{x}^{{{n}}} - {b}}}{{{y} + {n}}} = \\sqrt{{{b}{x}{y}}}\n\\]",
                f"Let ${x} = {a}{y} + {b}$ be the {word}, so ${x}^2 \\equiv {n} \\pmod{{{b}}}$.",
                f"$$\\sum_{{{x}=1}}^{{{b}}} \\binom{{{n}}}{{{x}}} {y}^{{{x}}} \\le {a}\\pi$$",
                f"\\begin{{align*}}\n{x} + {a}{y} &= {b} \\\\\n{n}{x} - {y} &= {a * b}\n"
                f"\\end{{align*}}\nHere ${y}$ counts every {word}.",
            )
        )

    def _list(self, draw: Random) -> str:
        items = draw.sample(self._sentences, draw.randint(3, 5))
        mark = draw.choice(("- ", "{}. ", "* **Step {}:** "))
        return "\n".join(mark.format(number) + item for number, item in enumerate(items, 1))

    def _code(self, draw: Random) -> str:
        name, item, total = (self._word(draw) for _ in range(3))
        a, b = draw.randrange(2, 99), draw.randrange(2, 999)
        return (
            f"```python\ndef count_{name}({item}s, {total}={b}):\n"
            f"    for i, {item} in enumerate({item}s):\n        if {item} % {a} == {a // 2}:\n"
            f'            {total} += {item} ** 2\n    return {{"{name}": {total}}}\n```'
        )

    def _symbols(self, draw: Random) -> str:
        one, other = draw.sample(_UNICODE, 2)
        return f"Note that {one}, as for the {self._word(draw)}, and {other} too."

    def _word(self, draw: Random) -> str:
        return draw.choice(self._words)


def write(folder: Path, rows: int) -> None:
    """rows.jsonl, test.jsonl (the same columns) and benchmark.jsonl (`question`) in `folder`."""
    writer = Writer()
    folder.mkdir(parents=True, exist_ok=True)
    known = (writer.question(f"benchmark-{number}") for number in range(BENCHMARK))
    _write(folder / "benchmark.jsonl", ({"question": question} for question in known))
    _write(folder / "test.jsonl", (_test_row(writer, number) for number in range(TEST)))
    _write(folder / "rows.jsonl", (writer.row(index) for index in range(rows)))


def _test_row(writer: Writer, number: int) -> dict[str, Any]:
    row = writer.row(-100 * number - 99)
    return row | {"id": f"test-{number}", "problem": writer.question(f"test-{number}")}


def _write(path: Path, records: Iterator[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for record in records:
            file.write(json.dumps(record, ensure_ascii=False) + "\n")


def _sentences(package: str) -> Iterator[str]:
    """English sentences without numbers or marks in a package's docstrings."""
    spec = find_spec(package)
    assert spec and spec.submodule_search_locations
    for path in sorted(Path(spec.submodule_search_locations[0]).rglob("*.py")):
        for text in re.findall(r'"""(.*?)"""', path.read_text(encoding="utf-8"), re.DOTALL):
            for paragraph in re.split(r"\n\s*\n", text):
                for sentence in re.split(r"(?<=\.)\s+(?=[A-Z])", " ".join(paragraph.split())):
                    if 5 < len(sentence.split()) < 40 and _SENTENCE.fullmatch(sentence):
                        yield sentence


def _turned(draw: Random, sentence: str) -> str:
    if draw.random() < 0.3:
        return draw.choice(_TURNS) + sentence[0].lower() + sentence[1:]
    return sentence


def _id(index: int) -> str:
    return f"row-{index:06d}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--out", type=Path, required=True, help="a folder")
    options = parser.parse_args()
    write(options.out, options.rows)


if __name__ == "__main__":
    main()
