"""GPTQ by gptqmodel: a script for a Python that has it, which need not be the one `pipe` runs in.

Nothing of `pipeline` is imported. The argument is a JSON file {"model", "out": folders, "device",
"group_size", "rows": lists of token ids to calibrate on, "versions": a file to write}; without one
it is only seen whether gptqmodel is there.
"""

import importlib.metadata
import importlib.util
import json
import os
import sys
import threading
from pathlib import Path


def main(path: str) -> None:
    """Quantize `model` to 4 bits and save it in `out`; errors are told by their traceback."""
    job = json.loads(Path(path).read_text(encoding="utf-8"))
    # gptqmodel 7.6 takes half the cores, and refuses to start with fewer than two
    os.environ.setdefault("GPTQMODEL_CPU_WORKERS", str(max(2, (os.cpu_count() or 1) // 2)))
    # its C++ for packing takes minutes to compile, and more than its Python to pack
    os.environ.setdefault("GPTQMODEL_DISABLE_PACK_EXT", "1")
    from gptqmodel import GPTQModel, QuantizeConfig  # type: ignore[import-not-found]

    config = QuantizeConfig(bits=4, group_size=job["group_size"], sym=True, desc_act=False)
    model = GPTQModel.load(
        job["model"], config, device=job["device"], trust_remote_code=False, dtype="float32"
    )
    rows = [{"input_ids": ids, "attention_mask": [1] * len(ids)} for ids in job["rows"]]
    model.quantize(rows, batch_size=1)
    model.save(job["out"])
    versions = {name: importlib.metadata.version(name) for name in ("gptqmodel", "torch")}
    Path(job["versions"]).write_text(json.dumps(versions), encoding="utf-8")


def find() -> None:
    """Raises ModuleNotFoundError, in Python's words; what is there is not loaded."""
    if importlib.util.find_spec("gptqmodel") is None:
        importlib.import_module("gptqmodel")


def end_with_the_parent() -> None:
    """Our input ends when whoever started us is gone."""
    while os.read(0, 1):
        pass
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=end_with_the_parent, daemon=True).start()
    main(sys.argv[1]) if len(sys.argv) > 1 else find()
