"""Gates: is what is served what was trained?"""

from pipeline.check.gates import Gate, check

__all__ = ["Gate", "check"]
