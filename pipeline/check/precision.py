"""Precision: the merge took effect, and no step on the way to the file cost more than it must."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace

from pipeline.base import Base
from pipeline.check.gates import Finding
from pipeline.check.measure import NARROW, SAME, WIDE, Cost
from pipeline.check.merge import ADAPTER, TRAINING, Change, Fit, differing, fit, pooled
from pipeline.check.subject import Subject
from pipeline.check.tensors import F32, Stored, Weights
from pipeline.errors import PipeError

ENGINE_KL = 5e-4
"""Nats. Two engines with the same 16-bit weights round their activations differently: 1e-5 to
5e-4 is what Transformers in fp32 and llama.cpp are seen to differ by. In bf16 it is more: the
demo's untuned base differs by 4e-3, and by 5e-5 in fp32."""
ENGINE_SAME = 0.99
FACTOR = 2.0
FLOOR = 1e-3
MARGIN = 0.03
_DEVIATIONS = 3
"""Standard errors that a share of tokens may be off by chance."""
_CERTAIN = 0.95
"""The standard error of a share is taken at this one where it is above: that of 1 would be 0."""


def merge_took_effect(subject: Subject) -> Finding:
    """Each tensor of each file is the base's with the whole of what training changed, once.

    Every row is looked at. What a type's noise hides in each tensor is told from all together. Of
    a run that was trained in full the change is its model less the base, and a tensor that is not
    quantized must be the model's to the bit.
    """
    found: dict[str, list[Fit]] = {type: [] for type in subject.files}
    try:
        for type, each in _fits(subject):
            found[type].append(each)
    finally:
        subject.divergences.close_adapter()  # the models that come next want its memory
    wrong, together = [], dict[str, Fit]()
    for type, fits in found.items():
        faults = [fault for each in fits if (fault := each.fault())]
        if (whole := pooled(fits)) is not None and not faults:
            together[type] = whole
            faults = [fault] if (fault := whole.fault()) else []
        wrong += [f"{type}: {fault}" for fault in faults]
    fits = [each for some in found.values() for each in some]
    whose = TRAINING if subject.run.trained.is_full else ADAPTER
    told = any(whole.tells for whole in together.values()) or any(each.is_exact for each in fits)
    if not wrong and not told:
        raise PipeError(
            f"The {whose} change is too small to be told from the noise of quantizing.",
            "Train longer, or check a wider type: export.quantize",
        )
    return _merge_said(fits, together, whose), wrong


def _merge_said(fits: list[Fit], together: Mapping[str, Fit], whose: str) -> str:
    changed = [each for each in fits if each.coefficient is not None]
    shares = [each.coefficient or 0.0 for each in changed if each.tells] or [0.0]
    alone = sum(each.tells for each in changed)
    said = [
        f"all rows; {alone} tensors hold {min(shares):.3f} to {max(shares):.3f} of the "
        f"{whose} change"
    ]
    if lost := len(changed) - alone:
        said[0] += f", {lost} too little of it to tell alone"
    said += [
        f"{type} as a whole {whole.coefficient:.3f}"
        if whole.tells
        else f"{type} too little of it to tell"
        for type, whole in together.items()
    ]
    if exact := sum(each.is_exact for each in fits):
        said.append(f"{exact} that are not quantized are the trained ones to the bit")
    if left := len(fits) - len(changed):
        said.append(f"{left} are to be the base's own")
    return "; ".join(said)


def engines_agree(subject: Subject) -> Finding:
    """The tuned model is the same to Transformers and, as a 16-bit file, to llama.cpp.

    The share of equal first choices may be off by what chance makes of so many tokens. On a GPU
    Transformers computes in bf16: what that costs the base is then allowed too.
    """
    measures = subject.divergences
    chance = _DEVIATIONS * math.sqrt(ENGINE_SAME * (1 - ENGINE_SAME) / measures.positions)
    cost, most = measures.tuned("merged"), Cost(ENGINE_KL, ENGINE_SAME - chance)
    if not cost.within(most) and subject.run.trained.device == "cuda":
        most = most.or_wider(bar(measures.baseline(SAME), measures.positions))
    wrong = [] if cost.within(most) else [f"{_said(cost)}; allowed is {_said(most)}"]
    return f"{_said(cost)} on {measures.looked_at}", wrong


def adapter_kept(subject: Subject) -> Finding:
    """The adapter on the base it was trained on says what the merged model says."""
    cost, baseline = subject.divergences.tuned("adapter"), Cost(0.0, 1.0)
    for narrow, bits in NARROW.items():
        if bits == subject.run.trained.bits:
            baseline = subject.divergences.baseline(narrow)
    return _judged(subject, {"adapter": (cost, baseline)})


def quantization(subject: Subject) -> Finding:
    """Each file costs no more than the base alone, quantized the same way."""
    measures = subject.divergences
    costs = {}
    for type in subject.files:
        if type != WIDE:
            costs[type] = (measures.tuned(type), measures.baseline(type))
    if not costs:
        return "BF16 alone, which is not quantized", []
    return _judged(subject, costs)


def bar(baseline: Cost, positions: int) -> Cost:
    """What a tuned model may cost at most, by what the base alone costs.

    The same rounding of nearly the same weights costs nearly the same: within FACTOR. FLOOR, in
    nats, is twice what engines may differ by. Shares of equal first choices differ by chance too:
    by up to 3 standard errors of a difference of two shares of `positions` tokens each, and MARGIN
    at least. The demo's files of nine types, Q2_K to F16, cost 0.03 to 0.1 of their base; one not
    merged 6.3 nats where 0.003 are allowed, one with the rows of a single k projection in another
    order 0.39.
    """
    share = min(baseline.same_top, _CERTAIN)
    chance = _DEVIATIONS * math.sqrt(2 * share * (1 - share) / positions)
    return Cost(FACTOR * baseline.kl + FLOOR, baseline.same_top - max(MARGIN, chance))


def _judged(subject: Subject, costs: dict[str, tuple[Cost, Cost]]) -> Finding:
    said, wrong, measures = [], [], subject.divergences
    for name, (cost, baseline) in costs.items():
        found = {"kl": cost.kl, "same_top": cost.same_top}
        found |= {"baseline_kl": baseline.kl, "baseline_same_top": baseline.same_top}
        measures.precision[name] = {k: v if math.isfinite(v) else None for k, v in found.items()}
        if not baseline.finite:
            wrong.append(f"{name}: of the base alone {_said(baseline)}")
            continue
        most = bar(baseline, measures.positions)
        said.append(f"{name} {_said(cost)} (base alone {_said(baseline)})")
        if not cost.within(most):
            wrong.append(f"{name}: {_said(cost)}; the base alone allows {_said(most)}")
    return f"{'; '.join(said)} on {measures.looked_at}", wrong


def _said(cost: Cost) -> str:
    if not cost.finite:
        return f"predictions are not finite numbers (KL {cost.kl:.2g} nats)"
    return f"KL {cost.kl:.2g} nats, same first choice {cost.same_top:.1%}"


def _fits(subject: Subject) -> Iterator[tuple[str, Fit]]:
    """(type, fit) of every tensor of every file that the base has too; one delta is in memory."""
    known = subject.run.trained
    files = {type: Stored(header) for type, header in subject.headers.items()}
    if known.is_full:
        yield from _fits_in_full(files, _weights(known.base), _weights(known.model))
        return
    base = _weights(known.base)
    changed: set[str] = set()
    for module, delta in subject.divergences.adapter.adapter_deltas():
        name = base.gguf_name(f"{module}.weight")
        if name not in base.tensors:
            raise PipeError(f"The base has no {module}.", "Merge it by hand and compare.")
        changed.add(name)
        yield from _in_each(files, name, base, delta)
    for name in sorted(base.tensors.keys() - changed):
        yield from _in_each(files, name, base, None)


def _fits_in_full(
    files: Mapping[str, Stored], base: Weights, model: Weights
) -> Iterator[tuple[str, Fit]]:
    """The same for a model that was trained in full: every tensor may have changed."""
    for name, after in sorted(model.tensors.items()):
        before = base.tensors.get(name)
        same = before is not None and before.bits.shape == after.bits.shape
        change = Change(before, after) if before is not None and same else None
        for type, found in _in_each(files, name, base if change else model, change):
            tensor = files[type].tensors.get(name)
            other = differing(files[type], tensor, model) if tensor else None
            yield type, replace(found, whose=TRAINING, differing=other)


def _weights(base: Base) -> Weights:
    return Weights(base.shards(), base.config)


def _in_each(
    files: Mapping[str, Stored], name: str, base: Weights, delta: F32 | Change | None
) -> Iterator[tuple[str, Fit]]:
    for type, stored in files.items():
        if name in stored.tensors:
            yield type, fit(stored, stored.tensors[name], base, delta)
        elif name != "output.weight":  # its gate is that of tied embeddings
            yield type, Fit(name, float("nan"), 0.0, None)
