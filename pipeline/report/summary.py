"""The four answers on top: what was trained, is it better, may it ship, how it is run."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from markupsafe import Markup

from pipeline.engines.trained import FULL, TUNED
from pipeline.report.charts import interval_bar
from pipeline.report.deciding import comparison, main_metric
from pipeline.report.licences import told
from pipeline.report.view import Gap, RunView
from pipeline.report.words import (
    LIKELY,
    Value,
    by_chance,
    duration,
    finite,
    listed,
    metric,
    number,
    plural,
    share,
    size,
)

Tone = Literal["good", "bad", "warn", "plain"]


@dataclass
class Answer:
    question: str
    headline: str
    tone: Tone = "plain"
    text: list[str] = field(default_factory=list)
    bars: list[tuple[str, str, Markup]] = field(default_factory=list)
    """(name, value, its interval on a track)."""
    commands: list[str] = field(default_factory=list)
    """What to type, as it stands."""


def summary(view: RunView) -> list[Answer]:
    return [_trained(view), _better(view), _safe(view), _run_it(view)]


_METHODS = {"qlora": "QLoRA", "lora": "LoRA", "lora-8bit": "LoRA on a base in 8 bits"}


def method(view: RunView) -> str:
    """How it was trained, as it really ran; of an adapter its size, too."""
    train = view.manifests["train"].section.get("train", {})
    name = str(view.facts("train").get("method") or train.get("method", ""))
    lora = train.get("lora")
    if name == FULL or not lora:
        return "Full fine-tuning"
    kinds = [_METHODS.get(name, "LoRA"), f"r = {lora['r']}", f"alpha = {lora['alpha']}"]
    kinds += [said for key, said in (("rslora", "rsLoRA"), ("dora", "DoRA")) if lora.get(key)]
    return ", ".join(kinds)


def base_name(view: RunView) -> str:
    return str(view.recipe.get("model", {}).get("base", "?")).removeprefix("builtin:")


def datasets(view: RunView) -> list[str]:
    names = [str(source["dataset"]) for source in view.facts("data").get("sources", ())]
    return list(dict.fromkeys(name.removeprefix("builtin:") for name in names))


def _trained(view: RunView) -> Answer:
    answer = Answer("What was trained on what?", base_name(view))
    data = view.manifests.get("data")
    if data is None:
        return _gap(answer, view.gap("data"))
    rows = data.counts.get("train", 0)
    answer.text.append(f"{plural(rows, 'training row')} of {listed(datasets(view))}.")
    if "train" not in view.manifests:
        return _gap(answer, view.gap("train"))
    facts, steps = view.facts("train"), view.manifests["train"].counts.get("steps", 0)
    share = facts["trainable_parameters"] / max(1, facts["total_parameters"])
    answer.text.append(
        f"{method(view)}, {plural(steps, 'step')}: {facts['trainable_parameters']:,} of "
        f"{facts['total_parameters']:,} parameters ({share:.1%})."
    )
    answer.text.append(f"On {_device(facts)}{_took(view.log)}.")
    answer.text.append(_loss(view))
    return answer


def _loss(view: RunView) -> str:
    """From the first logged step to the last, and on the rows that steer."""
    if not view.steps:
        return ""
    final = view.facts("train").get("eval_loss")
    ends = [number(view.steps[place].get("loss")) for place in (0, -1)]
    held_out = "" if final is None else f", {number(final)} on rows that only steer"
    return f"Loss {ends[0]} → {ends[1]}{held_out}."


def _device(facts: Mapping[str, Any]) -> str:
    return f"{'a CPU' if facts['device'] == 'cpu' else facts['device']}, {facts['precision']}"


def _took(log: Mapping[str, Any]) -> str:
    seconds, memory = log.get("seconds", {}).get("train"), log.get("peak_memory_bytes") or {}
    took = f", in {duration(seconds)}" if seconds else ""
    peak = memory.get("gpu_reserved") or memory.get("resident")
    return took + (f", with {size(peak)} of memory at the peak" if peak else "")


def verdict(name: str, before: Value, after: Value, test: Mapping[str, Any]) -> tuple[str, Tone]:
    """Better, worse or neither: by the paired test, else by intervals that do not meet.

    Where a test was made, both its interval and its p-value (below 0.05) must say so.
    """
    change = test.get("change") or {
        "low": _minus(after.get("low"), before.get("high")),
        "high": _minus(after.get("high"), before.get("low")),
    }
    low, high = change.get("low"), change.get("high")
    better = metric(name).better
    p_value = test.get("p_value")
    unclear: tuple[str, Tone] = ("No clear difference", "warn")
    known = finite(before.get("value")) and finite(after.get("value"))
    if not (known and finite(low) and finite(high)) or low <= 0 <= high or not better:
        return unclear
    if p_value is not None and not p_value < LIKELY:
        return unclear
    return ("Yes", "good") if (low > 0) == (better == "higher") else ("No, it got worse", "bad")


def _minus(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one - other


def _better(view: RunView) -> Answer:
    answer = Answer("Did it get better?", "Not measured")
    name, tuned = main_metric(view), view.tuned
    if not name or tuned is None:
        return _gap(answer, view.gap("eval"))
    if "base" not in view.engines:
        found = f"{metric(name).label} {metric(name).shown(view.engines[tuned].get(name))}"
        doubt = view.doubt("eval")
        answer.headline, answer.tone = (f"{doubt}: {found}", "warn") if doubt else (found, "plain")
        answer.text.append("The base was not measured, so nothing says what training changed.")
        answer.text.append(_well_formed(view, tuned))
        return answer
    return _compared(view, name, tuned, answer)


def _compared(view: RunView, name: str, tuned: str, answer: Answer) -> Answer:
    before, after = view.engines["base"].get(name), view.engines[tuned].get(name)
    kind = metric(name)
    if not before or not after:
        answer.text.append(f"{kind.label} was not measured on both.")
        return answer
    test = comparison(view, name, "base", tuned)
    word, answer.tone = verdict(name, before, after, test)
    if doubt := view.doubt("eval"):
        word, answer.tone = doubt, "warn"
    answer.headline = f"{word}: {kind.shown(before)} → {kind.shown(after)}"
    top = 1.0 if kind.form is share else _top(before, after)
    answer.bars = [
        ("before", kind.shown(before), interval_bar(before, 0.0, top, 1, 320)),
        ("after", kind.shown(after), interval_bar(after, 0.0, top, 2, 320)),
    ]
    answer.text.append(in_words(name, int(view.results["items"]), test))
    answer.text.append(_well_formed(view, tuned))
    return answer


def _top(*values: Value) -> float:
    ends = (value.get(end) for value in values for end in ("high", "value"))
    return max((end for end in ends if finite(end)), default=0.0) or 1.0


def in_words(name: str, questions: int, test: Mapping[str, Any]) -> str:
    """What was asked of whom, by how much the metric changed, and whether that may be chance."""
    kind, items = metric(name), plural(questions, "question")
    less = ", less is better," if kind.better == "lower" else ""
    asked = f"{kind.label}{less} on {items} that training never saw"
    if not test:
        return f"{asked}; lines are 95% intervals."
    change = test["change"]
    interval = kind.changes(change)
    shown = f"{kind.change(change['value'])}{f' (95% interval {interval})' if interval else ''}."
    p_value = test.get("p_value")
    said = by_chance(p_value, change) if finite(p_value) else ""
    return f"{asked}: {shown} {said}".rstrip()


def _well_formed(view: RunView, tuned: str) -> str:
    kind, after = metric("well_formed"), view.engines[tuned].get("well_formed")
    if not after:
        return ""
    before = view.engines.get("base", {}).get("well_formed")
    shown = f"{kind.shown(before)} → {kind.shown(after)}" if before else kind.shown(after)
    return f"Well formed, thinking closed and an answer after it: {shown}."


def gate_counts(view: RunView) -> dict[str, int]:
    """passed, failed, not_run."""
    statuses = [gate["status"] for gate in view.checks.get("gates", ())]
    return {status: statuses.count(status) for status in ("passed", "failed", "not_run")}


def _safe(view: RunView) -> Answer:
    answer = Answer("Is it safe to ship?", "Not checked")
    if not view.checks:
        _gap(answer, view.gap("check"))
    else:
        _gates(view, answer)
    if cost := quantization_cost(view):
        answer.text.append(cost)
    if "export" in view.manifests:
        answer.text.append(told(view))
    return answer


def _gates(view: RunView, answer: Answer) -> None:
    counts = gate_counts(view)
    total = sum(counts.values())
    if counts["failed"]:
        answer.headline = f"No: {plural(counts['failed'], 'gate')} failed"
        answer.tone = "bad"
    elif counts["not_run"]:
        answer.headline = f"Not fully checked: {counts['passed']} of {total} gates"
        answer.tone = "warn"
    else:
        answer.headline, answer.tone = f"Yes: all {total} gates passed", "good"
    if doubt := view.doubt("check"):
        answer.headline, answer.tone = doubt, "warn"
    parts = [f"{counts['passed']} passed", f"{counts['failed']} failed"]
    parts.append(f"{counts['not_run']} not run")
    failed = [gate["name"] for gate in view.checks["gates"] if gate["status"] == "failed"]
    answer.text.append(f"{', '.join(parts)}.{f' Failed: {listed(failed)}.' if failed else ''}")


def quantization_cost(view: RunView) -> str:
    """What the file that Ollama gets lost: in score against the tuned model, which an adapter is
    beside the base that it was trained on, and in KL divergence against that merged in 16 bits."""
    kind = next(iter(view.files), None)
    if kind is None:
        return ""
    kl = view.checks.get("precision", {}).get(kind, {}).get("kl")
    lost, far = _lost(view, kind), "" if kl is None else f"KL divergence {number(kl)} from 16 bits"
    what = "Merging and quantizing" if lost and view.tuned == TUNED else "Quantizing"
    said = "; ".join(filter(None, (lost, far)))
    return f"{what} to {kind} costs: {said}." if said else ""


def _lost(view: RunView, kind: str) -> str:
    """The change of the deciding metric; empty where not both were measured."""
    name, tuned = main_metric(view), view.tuned
    if not name or tuned is None or tuned == kind:
        return ""
    before, after = (view.engines.get(each, {}).get(name) for each in (tuned, kind))
    change = _minus(after and after.get("value"), before and before.get("value"))
    if not before or not after or change is None:
        return ""
    clear = verdict(name, before, after, comparison(view, name, tuned, kind))[1] != "warn"
    shown = f"{metric(name).label.lower()} {metric(name).change(change)}"
    return shown if clear else f"{shown}, no clear difference"


def _run_it(view: RunView) -> Answer:
    answer = Answer("How do I run it?", view.serve_name)
    if "export" not in view.manifests:
        return _gap(answer, view.gap("export"))
    kind = next(iter(view.sizes), None)
    serve = view.manifests["export"].section.get("serve", {})
    context = serve.get("num_ctx") or view.recipe.get("model", {}).get("max_seq_length")
    answer.text.append(
        (f"{kind}, {size(view.sizes[kind])}; " if kind else "")
        + f"a context of {context:,} tokens, temperature {serve.get('temperature', 'unset')}."
    )
    gone = kind is not None and view.files[kind] in view.freed.get("export", ())
    again = ", once its file, which pipe clean freed, is made again" if gone else ""
    answer.text.append(f"In Ollama; or in this terminal, without a server{again}.")
    if view.served:
        answer.commands = [f"ollama run {view.served}"]
    else:
        answer.commands = [view.command("register"), f"ollama run {view.serve_name}"]
    if gone:
        answer.commands.append(view.command("export"))
    answer.commands.append(view.command("chat"))
    return answer


def _gap(answer: Answer, gap: Gap) -> Answer:
    answer.tone = "warn"
    answer.text.append(gap.text)
    answer.commands.append(gap.command)
    return answer
