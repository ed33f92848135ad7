"""The files that tell how a training went: metrics and samples, which repeat; logs with times."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

Line = Mapping[str, Any]


def write_lines(path: Path, lines: Iterable[Line]) -> None:
    """JSON lines with sorted keys."""
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for line in lines:
            file.write(json.dumps(line, sort_keys=True, ensure_ascii=False) + "\n")


def append_line(path: Path, line: Line) -> None:
    with path.open("a", encoding="utf-8", newline="\n") as file:
        file.write(json.dumps(line, sort_keys=True, ensure_ascii=False) + "\n")


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a file that may not be there, up to the first that a crash has torn."""
    found: list[dict[str, Any]] = []
    for line in path.read_bytes().splitlines(keepends=True) if path.exists() else ():
        try:
            value = json.loads(line)
        except ValueError:
            break
        if not line.endswith(b"\n") or not isinstance(value, dict):
            break
        found.append(value)
    return found


def write_logs(folder: Path, result: Mapping[str, Any], speeds: list[dict[str, Any]]) -> None:
    """metrics.jsonl, samples.jsonl where there are any, speed.jsonl and the two logs."""
    trace = result["trace"]
    write_lines(folder / "metrics.jsonl", trace["metrics"])
    if trace["samples"]:
        write_lines(folder / "samples.jsonl", trace["samples"])
    write_lines(folder / "speed.jsonl", speeds)
    log = {**result["facts"], **{k: result[k] for k in ("facts", "seconds", "peak_memory_bytes")}}
    log["steps_logged"] = _with_speed(trace["metrics"], speeds)
    (folder / "training_log.json").write_text(
        json.dumps(log, indent=2, sort_keys=True) + "\n", encoding="utf-8"
    )
    (folder / "training_log.txt").write_text(_text(result, log["steps_logged"]), encoding="utf-8")


def _with_speed(metrics: list[dict[str, Any]], speeds: list[dict[str, Any]]) -> list[Line]:
    """The steps' lines, each with its speed where that was measured."""
    by_step = {line["step"]: line for line in speeds}
    return [
        {"tokens_per_second": None, **by_step.get(line["step"], {}), **line}
        for line in metrics
        if "loss" in line
    ]


def _text(result: Mapping[str, Any], steps: list[Line]) -> str:
    facts = result["facts"]
    share = facts["trainable_parameters"] / facts["total_parameters"]
    seconds = result["seconds"]
    lines = [
        f"method                {facts['method']}",
        f"device                {facts['device']}, {facts['precision']}",
        f"trainable parameters  {facts['trainable_parameters']:,} ({share:.2%})",
        f"total parameters      {facts['total_parameters']:,}",
        f"steps                 {facts['steps']}, weights of step {facts['kept_step']}",
        f"duration              {seconds['train']:.1f} s (loading {seconds['load']:.1f} s)",
        *(
            f"peak memory           {size / 1e9:.2f} GB {kind}"
            for kind, size in result["peak_memory_bytes"].items()
        ),
        f"final loss            {facts['final_loss']:.4f}",
        f"eval loss             {_loss(facts['eval_loss'])}",
        f"loss on general rows  {_loss(facts['general_loss_before'])} before, "
        f"{_loss(facts['general_loss_after'])} after",
        "",
        "  step      loss  grad norm  learning rate  tokens/s",
        *(_row(step) for step in steps),
    ]
    for sample in result["trace"]["samples"]:
        lines += ["", f"step {sample['step']}: {sample['question']}", sample["reply"]]
    return "\n".join(lines) + "\n"


def _row(step: Line) -> str:
    norm = "skipped" if step["grad_norm"] is None else f"{step['grad_norm']:.3f}"
    rate = step["tokens_per_second"]
    return (
        f"{step['step']:6d}  {step['loss']:8.4f}  {norm:>9}  {step['learning_rate']:13.3e}  "
        f"{'' if rate is None else f'{rate:.0f}':>8}"
    )


def _loss(value: float | None) -> str:
    return "no rows" if value is None else f"{value:.4f}"
