"""The prepare stage: from a dataset's records to cleaned, compared, split, encoded rows."""

from pipeline.data.estimate import Expected, expected
from pipeline.data.prepare import prepare
from pipeline.data.read.rows import Reject, Row
from pipeline.data.shown import Shown, shown

__all__ = ["Expected", "Reject", "Row", "Shown", "expected", "prepare", "shown"]
