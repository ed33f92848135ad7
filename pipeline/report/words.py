"""Figures as a person reads them: shares, sizes, times, chances."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any, Literal, TypeGuard

from pipeline.recipe.metrics import KNOWN

LIKELY = 0.05
"""From this p-value on a difference may be chance."""
Value = Mapping[str, float | None]
"""{"value", "low", "high"}: an estimate and its 95% interval."""
_NO_NUMBER = "not a number"
_CERTAIN = 0.995
"""From this p-value on it rounds to 1."""


def finite(value: object) -> TypeGuard[float]:
    """Whether it can be drawn and compared: no null, no NaN, no infinity."""
    return isinstance(value, int | float) and isfinite(value)


def share(value: float | None) -> str:
    return f"{100 * value:.1f}%" if finite(value) else _NO_NUMBER


def number(value: float | None) -> str:
    """Three significant digits, or all digits of what is large."""
    if not finite(value):
        return _NO_NUMBER
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def size(count: float) -> str:
    """Bytes in decimal units, as Ollama shows them."""
    if not finite(count):
        return _NO_NUMBER
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:.3g} {unit}"
    return f"{count:.0f} bytes"


def duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.3g} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02} min"


def wait(seconds: float) -> str:
    return f"{seconds:.2g} s" if seconds >= 1 else f"{1000 * seconds:.0f} ms"


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


def is_zero(change: Value) -> bool:
    """No difference, and an interval that leaves room for none."""
    return all(change.get(end) == 0 for end in ("low", "value", "high"))


def by_chance(p_value: float, change: Value) -> str:
    """What a p-value says of a change, and whether 1 in 20 is beyond it."""
    shown = probability(p_value)
    if p_value > _CERTAIN:
        said = "The test finds no difference" if is_zero(change) else "Nothing tells it from chance"
        return f"{said} ({shown})."
    likely = f"Without any effect, {chance(p_value)} such tests would differ at least this much"
    return f"{likely} ({shown}){'.' if p_value < LIKELY else ': it may be chance.'}"


def odds(p_value: float | None, change: Value) -> str:
    """The same for a cell of a table."""
    if not finite(p_value):
        return "–"
    if p_value > _CERTAIN:
        return "no difference" if is_zero(change) else "nothing tells it from chance"
    return f"{probability(p_value)}, {'hardly chance' if p_value < LIKELY else 'may be chance'}"


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
        return f"{self.form(low)} to {self.form(high)}" if finite(low) and finite(high) else ""

    def change(self, change: float) -> str:
        """A difference of two values, with its sign; of shares, in percentage points."""
        if not finite(change):
            return _NO_NUMBER
        if self.form is share:
            return f"{round(100 * change, 1) + 0.0:+.1f} points".replace("-", "−")
        return f"{'+' if change >= 0 else '−'}{self.form(abs(change))}"

    def changes(self, change: Value) -> str:
        """The interval of a difference; empty where it has no width."""
        low, high = change.get("low"), change.get("high")
        if not finite(low) or not finite(high) or low == high:
            return ""
        return f"{self.change(low).removesuffix(' points')} to {self.change(high)}"


_LABELS: dict[str, tuple[str, Callable[[float], str], str]] = {
    "exact_match": ("Accuracy", share, "questions answered right"),
    "well_formed": ("Well formed", share, "one closed thinking block, then an answer"),
    "truncated": ("Cut off", share, "replies that ran into the token limit"),
    "wrong": ("Wrong", share, "ended, with another answer than the known one"),
    "cross_entropy": ("Cross-entropy", number, "nats a token of the known reply"),
    "perplexity": ("Perplexity", number, "of the known reply's tokens"),
    "rouge_l": ("ROUGE-L", number, "overlap with the known answer"),
    "bleu": ("BLEU", number, "overlap with the known answer"),
    "reply_tokens": ("Reply tokens", number, "mean length of a reply"),
    "thinking_tokens": ("Thinking tokens", number, "mean length of the thinking"),
    "repetition": ("Repetition", share, "what a reply says again"),
    "mae": ("MAE", number, "mean error, in the answer's own unit"),
    "rmsle": ("RMSLE", number, "error of the logarithms: by what factor it is off"),
    "hit_rate": ("Hit rate", share, "off by less than 40, or by less than 20%"),
    "within_20_percent": ("Within 20%", share, "off by less than 20%"),
    "r2": ("R²", number, "share of the numbers' spread that is explained"),
}
"""What evaluate's metrics are called here: label, form, explanation."""


def metric(name: str) -> Metric:
    """Of a user's own metric more is better, as evaluate has it."""
    label, form, about = _LABELS.get(name, (name.replace("_", " ").capitalize(), number, ""))
    better = KNOWN[name].better if name in KNOWN else "higher"
    return Metric(label, form, "" if better == "neither" else better, about)


def metrics_of(engines: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The names of all metrics that some engine has, ours first."""
    found = {
        name: None for scores in engines.values() for name in scores if _is_value(scores[name])
    }
    return [name for name in KNOWN if name in found] + [n for n in found if n not in KNOWN]


def _is_value(found: Any) -> bool:
    return isinstance(found, Mapping) and found.get("value") is not None
