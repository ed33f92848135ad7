"""Importance matrices as files, for a model of one weight."""

import gguf
import numpy as np

from tests.support.tiny_gguf import finished

NAME = "blk.0.attn_q.weight"
SUMS = np.arange(1, 9, dtype=np.float32)


def write_matrix(path, entries, *, whole=True, **keys):
    """`entries` maps a name to its sums and its counts; either may be None."""
    writer = gguf.GGUFWriter(path, "")
    types = {list: writer.add_array, str: writer.add_string, float: writer.add_float32}
    types |= {int: writer.add_int64, bool: writer.add_bool}
    given = {"datasets": ["rows.txt"], "chunk_size": 512, "chunk_count": 2} | keys
    for key, value in given.items():
        if whole or key != "chunk_count":
            types[type(value)](f"imatrix.{key}", value)
    for name, (sums, counts) in entries.items():
        for suffix, values in (("in_sum2", sums), ("counts", counts)):
            if values is not None:
                writer.add_tensor(f"{name}.{suffix}", np.asarray(values, np.float32))
    return finished(writer, path)
