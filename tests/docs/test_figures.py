"""Figures that the pages quote from benchmarks/ are the ones that stand there."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.docs.pages import DOCS, ROOT


def kept(name: str) -> Any:
    return json.loads((ROOT / "benchmarks" / f"{name}.json").read_text(encoding="utf-8"))


def demo() -> Iterator[tuple[str, str]]:
    """Page, and what it has to say of the demo."""
    found = kept("demo")
    engines = found["results"]["engines"]
    exact = {name: scores["exact_match"] for name, scores in engines.items()}
    for page in ("ideas/when-to-fine-tune", "ideas/thinking", "notebooks/demo-fine-tune"):
        for engine in ("base", "adapter"):
            yield page, f"{exact[engine]['value']:.1%}"
    yield (
        "notebooks/demo-fine-tune",
        f"after {found['seconds']['train']['train_seconds']:.0f} seconds",
    )
    low, high = (100 * exact["adapter"][key] for key in ("low", "high"))
    yield "ideas/when-to-fine-tune", f"({low:.1f} to {high:.1f}"
    for engine, name in (
        ("adapter", "adapter, before the merge"),
        ("Q8_0", "Q8_0"),
        ("Q4_K_M", "Q4_K_M"),
    ):
        of = exact[engine]
        yield (
            "ideas/gguf",
            f"| {name} | {of['value']:.1%} | {100 * of['low']:.1f} to {100 * of['high']:.1f} | "
            f"{engines[engine]['perplexity']['value']:.3f} |",
        )
    lost = 100 * (exact["adapter"]["value"] - exact["merged"]["value"])
    yield "ideas/lora", f"on the demo {lost:.1f} points"


def export() -> Iterator[tuple[str, str]]:
    shape = kept("export")["shapes"]["1B"]
    for each in ("q4_k_m", "q5_k_m", "q8_0"):
        (bytes,) = shape[each]["files"].values()
        bits = 8 * bytes / 1_235_814_400
        yield "ideas/gguf", f"| {each.upper()} | {bytes:,} | {bits:.2f} |"
    ours, peer = (shape[each]["seconds"] for each in ("q4_k_m", "peer_q4_k_m"))
    yield "from-a-notebook", f"takes {ours:.0f} seconds, against {peer:.0f}"


def training() -> Iterator[tuple[str, str]]:
    contenders = kept("gpu_train")["contenders"]
    rates = sorted(
        contenders[each]["tokens_per_second"] for each in ("pipe_1b", "pipe_1b_first_call")
    )
    for page in ("ideas/lora", "notebooks/one-gpu"):
        yield page, " to ".join(f"{rate:,.0f}" for rate in rates)
    peak = contenders["pipe_1b"]["gpu_allocated_bytes"]
    yield "ideas/lora", f"in {peak / 1e9:.1f} GB"


@pytest.mark.parametrize(("page", "said"), [*demo(), *export(), *training()])
def test_a_page_quotes_what_was_kept(page: str, said: str) -> None:
    text = (DOCS / f"{page}.md").read_text(encoding="utf-8")
    assert " ".join(said.split()) in " ".join(text.split())
