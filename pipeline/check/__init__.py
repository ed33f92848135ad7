"""Gates: is what is served what was trained?"""

from pipeline.check.gates import Gate
from pipeline.check.part import RunPart
from pipeline.check.stage import check, check_file, check_model

__all__ = ["Gate", "RunPart", "check", "check_file", "check_model"]
