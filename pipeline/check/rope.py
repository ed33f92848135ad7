"""The rotary embedding: the file divides its frequencies as the base's configuration asks."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.check.gates import Finding
from pipeline.check.subject import Subject
from pipeline.check.tensors import Stored

_NAME = "rope_freqs.weight"
_TOLERANCE = 1e-4
"""Relative: fp32, whose last bits differ by how the powers are taken."""


def rope_frequencies(subject: Subject) -> Finding:
    """Each file has rope_freqs.weight exactly where the base asks for Llama 3's scaling, as it is.

    Without it, or with another, a model is good at first and worse the longer its text is.
    """
    expected = factors(subject.run.base.config)
    wrong = [
        f"{type}: {fault}"
        for type, header in subject.headers.items()
        if (fault := _fault(Stored(header), expected))
    ]
    asked = "no scaling by frequency" if expected is None else f"{len(expected)} factors"
    return f"{_NAME}; the base asks for {asked}", wrong


def factors(config: Mapping[str, Any]) -> NDArray[np.float64] | None:
    """What each frequency is divided by, [head_dim / 2]; None without Llama 3's scaling.

    Transformers' `_compute_llama3_parameters` (modeling_rope_utils.py): the ratio of its
    frequencies before and after.
    """
    scaling = config.get("rope_scaling") or config.get("rope_parameters") or {}
    if scaling.get("rope_type", scaling.get("type")) != "llama3":
        return None
    heads = int(config["num_attention_heads"])
    width = int(config.get("head_dim") or int(config["hidden_size"]) // heads)
    theta = float(scaling.get("rope_theta") or config.get("rope_theta") or 10000.0)
    key = "original_max_position_embeddings"
    context = float(config.get(key) or scaling.get(key) or config["max_position_embeddings"])
    factor, low, high = (
        float(scaling[each]) for each in ("factor", "low_freq_factor", "high_freq_factor")
    )
    plain = theta ** -(np.arange(0, width, 2) / width)
    turns = context * plain / (2 * math.pi)  # of each frequency in the original context
    smooth = (turns - low) / (high - low)
    between = (1 - smooth) * plain / factor + smooth * plain
    scaled = np.where(turns < low, plain / factor, np.where(turns > high, plain, between))
    return np.asarray(plain / scaled)


def _fault(stored: Stored, expected: NDArray[np.float64] | None) -> str | None:
    tensor = stored.tensors.get(_NAME)
    if expected is None:
        return None if tensor is None else f"{_NAME} is there"
    if tensor is None:
        return f"{_NAME} is missing"
    found = stored.rows(tensor, np.array([0]))[0]
    if found.shape != expected.shape:
        return f"{_NAME} has {len(found)} factors, not {len(expected)}"
    off = ~np.isclose(found, expected, rtol=_TOLERANCE, atol=0.0)  # NaN is off too
    if not off.any():
        return None
    first = int(np.flatnonzero(off)[0])
    return f"{_NAME} has {found[first]:.5g} at {first}, not {expected[first]:.5g}"
