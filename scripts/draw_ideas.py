"""Draw figures of the ideas' pages: rows and prompts token by token, what the demo won and lost.

python scripts/draw_ideas.py    # equal code and figures give equal bytes
"""

import json
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from xml.etree.ElementTree import Element

from pipeline.assets import asset
from pipeline.chat import Encoder, chat_format
from pipeline.report.axes import add, canvas, markup
from pipeline.report.figure import Part, sheet, stacked
from pipeline.report.words import share

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "figures"
QUESTION = "Leo has 12 pens. Leo finds 30 more. How many pens?"
REASONING = "Leo finds 30 more: 12+30=42"
ANSWER = "Leo has 42 pens."

WIDTH, MARGIN, STEP, BOX = 680, 12, 30, 22
CHARACTER, PAD, GAP, LEGEND = 7.3, 5, 3, 150
STYLE = """
text { font: 12px ui-monospace, Menlo, Consolas, monospace; fill: #1c2330 }
.paper { fill: #fff }
.given { fill: #eceef2; stroke: #b9bec9 }
.written { fill: #d3ecd9; stroke: #3f8f58 }
.control { stroke-width: 2 }
"""

Token = tuple[str, str]
"""Its text and the classes of its box; both empty for a new line."""


def figures() -> dict[str, str]:
    """File name -> the picture as SVG."""
    return {"tokens": row(), "think": prompts(), "won-and-lost": won_and_lost()}


def row() -> str:
    """A training row: what is given, what is learned."""
    example = _encoder().example(QUESTION, REASONING, ANSWER)
    start = example.target_start
    told = (
        "A row of the demo, token by token. Given: the user's turn and the assistant's header. "
        "Learned: the thinking block, the answer and the control token that ends the turn."
    )
    tokens = [*_boxes(example.ids[:start], "given"), *_boxes(example.ids[start:], "written")]
    return _drawn(tokens, ("given", "learned"), told)


def prompts() -> str:
    """A question's prompt with thinking and without, and the reply to each."""
    encoder, tokens = _encoder(), list[Token]()
    for thinking in (True, False):
        prompt = encoder.prompt([{"role": "user", "content": QUESTION}], thinking=thinking)
        example = encoder.example(QUESTION, REASONING if thinking else None, ANSWER)
        tokens += [(f"think: {str(thinking).lower()}", ""), ("", "")]
        tokens += _boxes(prompt, "given")
        tokens += [*_boxes(example.ids[example.target_start :], "written"), ("", "")]
    told = (
        "The same question with think true and with think false. In the second prompt an empty "
        "thinking block follows the assistant's header, and the model writes the answer alone."
    )
    return _drawn(tokens, ("the template's", "the model's"), told)


def won_and_lost() -> str:
    """Two panels of the demo: right answers, and the loss on general rows, before and after."""
    found = json.loads((ROOT / "benchmarks" / "demo.json").read_text(encoding="utf-8"))
    engines, training = found["results"]["engines"], found["training"]
    right = {
        name: engines[engine]["exact_match"]["value"]
        for name, engine in (("before", "base"), ("after", "adapter"))
    }
    lost = {name: training[f"general_loss_{name}"] for name in ("before", "after")}
    return sheet(
        [
            stacked(
                "Won: right answers to three-step questions",
                [(name, [Part("right", value, 2)]) for name, value in right.items()],
                share,
                "share of 250",
            ),
            stacked(
                "Lost: what the base could do",
                [(name, [Part("loss", value, 3)]) for name, value in lost.items()],
                "{:.2f}".format,
                "loss on general rows, nats per token",
            ),
        ]
    )


@cache
def _encoder() -> Encoder:
    return Encoder(asset("data/tiny-llama/tokenizer.json"), chat_format("llama3.2-reasoning"))


def _boxes(ids: Iterable[int], kind: str) -> Iterator[Token]:
    encoder = _encoder()
    for number in ids:
        control = " control" if number in encoder.control_ids else ""
        yield encoder.text_of([number]), kind + control


def _drawn(tokens: Iterable[Token], kinds: tuple[str, str], told: str) -> str:
    """Boxes in lines, and below them what the colours mean."""
    boxes = list(_laid_out(tokens))
    height = max(y for *_, y in boxes) + STEP + 3 * MARGIN
    svg = canvas(told, height=height, width=WIDTH)
    svg.set("xmlns", "http://www.w3.org/2000/svg")
    add(svg, "style", STYLE)
    add(svg, "rect", cls="paper", width=WIDTH, height=height)
    for text, kind, x, y in boxes:
        if kind:
            add(svg, "rect", cls=kind, x=x, y=y, width=_width(text), height=BOX, rx=4)
        add(svg, "text", text, x=round(x + PAD, 1), y=y + 15)
    _legend(svg, height - MARGIN, kinds)
    return f"{markup(svg)}\n"


def _laid_out(tokens: Iterable[Token]) -> Iterator[tuple[str, str, float, int]]:
    """A token's text as shown, its classes, and where it stands: lines end where the text's do."""
    x, y = float(MARGIN), MARGIN
    for token, kind in tokens:
        text = token.replace(" ", "·").replace("\n", "↵") if kind else token
        if x + _width(text) > WIDTH - MARGIN:
            x, y = float(MARGIN), y + STEP
        if text:
            yield text, kind, round(x, 1), y
            x += _width(text) + GAP
        if not text or token.endswith("\n") or token == "<|eot_id|>":
            x, y = float(MARGIN), y + STEP


def _width(text: str) -> float:
    return round(len(text) * CHARACTER + 2 * PAD, 1)


def _legend(svg: Element, y: int, kinds: tuple[str, str]) -> None:
    entries = (("given", kinds[0]), ("written", kinds[1]), ("given control", "a control token"))
    for number, (kind, name) in enumerate(entries):
        x = MARGIN + LEGEND * number
        add(svg, "rect", cls=kind, x=x, y=y - 11, width=14, height=14, rx=3)
        add(svg, "text", name, x=x + 20, y=y)


if __name__ == "__main__":
    for name, picture in figures().items():
        (FOLDER / f"{name}.svg").write_text(picture, encoding="utf-8")
