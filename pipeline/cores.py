"""How many processors this process may use."""

import os
from pathlib import Path


def cores() -> int:
    """Cores that this process may use: a container's quota may be less than it sees."""
    seen = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    try:
        quota, _, period = Path("/sys/fs/cgroup/cpu.max").read_text().partition(" ")
        allowed = -(-int(quota) // int(period))
    except (OSError, ValueError):  # no cgroup, or "max"
        allowed = seen or 1
    return max(1, min(seen or 1, allowed))
