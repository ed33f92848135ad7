"""Are two runs of `pipe train` the same? Losses and adapter bytes, told as one JSON line."""

import hashlib
import json
import sys
from pathlib import Path
from typing import Any


def seen(run: Path) -> dict[str, Any]:
    train = run / "train"
    lines = (train / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    weights = (train / "adapter" / "adapter_model.safetensors").read_bytes()
    return {
        "losses": [json.loads(line)["loss"] for line in lines],
        "adapter_sha256": hashlib.sha256(weights).hexdigest(),
    }


def main() -> None:
    one, other = (seen(Path(name)) for name in sys.argv[1:3])
    pairs = list(zip(one["losses"], other["losses"], strict=True))
    found = {
        "losses_equal": one["losses"] == other["losses"],
        "largest_loss_difference": max(abs(a - b) for a, b in pairs),
        "adapters_equal": one["adapter_sha256"] == other["adapter_sha256"],
        "losses": [one["losses"], other["losses"]],
    }
    print("RESULT same", json.dumps(found))


if __name__ == "__main__":
    main()
