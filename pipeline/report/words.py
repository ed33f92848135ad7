"""Figures as a person reads them: shares, sizes, times, chances."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Value = Mapping[str, float | None]
"""{"value", "low", "high"}: an estimate and its 95% interval."""


def share(value: float) -> str:
    return f"{100 * value:.1f}%"


def number(value: float) -> str:
    """Three significant digits, or all digits of what is large."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def size(count: float) -> str:
    """Bytes in decimal units, as Ollama shows them."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:.3g} {unit}"
    return f"{count:.0f} bytes"


def duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.3g} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02} min"


def tokens(count: int) -> str:
    return f"{count // 1024}k" if count >= 1024 and count % 1024 == 0 else f"{count:,}"


def plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def listed(words: list[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def chance(p_value: float) -> str:
    """A p-value in plain words."""
    if p_value < 0.001:
        return "fewer than 1 in 1,000"
    if p_value < 0.01:
        return f"about {round(1000 * p_value)} in 1,000"
    return f"about {round(100 * p_value)} in 100"


def probability(p_value: float) -> str:
    return "p < 0.001" if p_value < 0.001 else f"p = {p_value:.2g}"


def odds(p_value: float) -> str:
    """The same for a cell of a table."""
    if p_value > 0.995:
        return "no difference"
    return f"{probability(p_value)}, {'hardly chance' if p_value < 0.05 else 'may be chance'}"


@dataclass(frozen=True)
class Metric:
    label: str
    form: Callable[[float], str] = number
    better: Literal["higher", "lower", ""] = ""
    about: str = ""

    def shown(self, value: Value | None) -> str:
        found = value and value.get("value")
        return "–" if found is None or isinstance(found, Mapping) else self.form(found)

    def between(self, value: Value | None) -> str:
        """The interval; empty where there is none."""
        low, high = ((value or {}).get(end) for end in ("low", "high"))
        return "" if low is None or high is None else f"{self.form(low)} to {self.form(high)}"

    def change(self, change: float) -> str:
        """A difference of two values, with its sign; of shares, in percentage points."""
        if self.form is share:
            return f"{round(100 * change, 1) + 0.0:+.1f} points".replace("-", "−")
        return f"{'+' if change >= 0 else '−'}{self.form(abs(change))}"

    def changes(self, change: Value) -> str:
        """The interval of a difference; empty where it has no width."""
        low, high = change.get("low"), change.get("high")
        if low is None or high is None or low == high:
            return ""
        return f"{self.change(low).removesuffix(' points')} to {self.change(high)}"


METRICS: dict[str, Metric] = {
    "exact_match": Metric("Accuracy", share, "higher", "questions answered right"),
    "well_formed": Metric(
        "Well formed", share, "higher", "one closed thinking block, then an answer"
    ),
    "truncated": Metric("Cut off", share, "lower", "replies that ran into the token limit"),
    "cross_entropy": Metric("Cross-entropy", number, "lower", "nats a token of the known reply"),
    "perplexity": Metric("Perplexity", number, "lower", "of the known reply's tokens"),
    "rouge_l": Metric("ROUGE-L", number, "higher", "overlap with the known answer"),
    "bleu": Metric("BLEU", number, "higher", "overlap with the known answer"),
    "reply_tokens": Metric("Reply tokens", number, "", "mean length of a reply"),
    "thinking_tokens": Metric("Thinking tokens", number, "", "mean length of the thinking"),
    "repetition": Metric("Repetition", share, "lower", "what a reply says again"),
}
"""In the order of the page; a user's own metrics follow."""


def metric(name: str) -> Metric:
    return METRICS.get(name) or Metric(name.replace("_", " ").capitalize())


def metrics_of(engines: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The names of all metrics that some engine has, ours first."""
    found = {
        name: None for scores in engines.values() for name in scores if _is_value(scores[name])
    }
    return [name for name in METRICS if name in found] + [n for n in found if n not in METRICS]


def _is_value(found: Any) -> bool:
    return isinstance(found, Mapping) and found.get("value") is not None
