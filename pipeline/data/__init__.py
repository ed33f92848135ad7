"""The prepare stage: from a dataset's records to cleaned, split, encoded rows."""

from pipeline.data.prepare import prepare
from pipeline.data.rows import Reject, Row

__all__ = ["Reject", "Row", "prepare"]
