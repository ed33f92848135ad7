"""Keep a run's figures under benchmarks/recipes/, and write them into the recipes' pages.

python scripts/recipe_table.py runs/alpaca-tiny --for qwen3-0.6b-alpaca-100   # keep, then write
python scripts/recipe_table.py                                                # write alone
"""

import argparse
import json
import platform
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Any

from pipeline.chat import chat_format, parse_reply
from pipeline.report.gather import answers_of, gather
from pipeline.report.safe import visible
from pipeline.report.view import RunView
from pipeline.report.words import duration, listed, metric, number, size
from pipeline.run import Run

ROOT = Path(__file__).parents[1]
PAGES = ROOT / "docs" / "recipes"
KEPT = ROOT / "benchmarks" / "recipes"
BETWEEN = re.compile(r"(?<=<!-- results: )([\w.-]+)( -->\n).*?(?=<!-- /results -->)", re.DOTALL)
SHOWN = (
    "exact_match", "well_formed", "mae", "rmsle", "hit_rate", "r2", "perplexity", "rouge_l",
    "reply_tokens",
)  # fmt: skip
READ_ALOUD = 5
"""A further task of at most so many questions is shown with its replies."""
TOOK = {
    "data": ("before_writing", "seconds"),
    "train": ("load_seconds", "train_seconds"),
    "export": ("seconds",),
    "eval": ("seconds",),
}
"""Stage -> the parts of its timing.json that are its work."""
LONGEST = 160
"""Characters of such a reply in the page."""
UNITS: dict[str, Callable[[float], str]] = {
    "parameters": lambda value: f"{value:,}",
    "bytes": size,
    "seconds": duration,
    "share": lambda value: f"{100 * value:.2f}%",
    "tokens/s": lambda value: f"{value:,.0f} tokens/s",
    "loss": lambda value: f"{value:.4g}",
}


def with_results(text: str) -> str:
    """The page with what stands between its markers made anew from the kept figures.

    Raises FileNotFoundError for a marker whose figures nobody kept.
    """
    return BETWEEN.sub(lambda found: f"{found[1]}{found[2]}{tables(read(found[1]))}\n", text)


def read(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((KEPT / f"{name}.json").read_text(encoding="utf-8"))
    return found


def tables(kept: Mapping[str, Any]) -> str:
    """What is expected and what was measured elsewhere, then what a run of ours left."""
    parts = []
    if known := kept.get("known"):
        rows = [(each["figure"], _known(each), each["how"]) for each in known]
        parts.append(_table(("Figure", "Value", "How it is known"), rows))
    if run := kept.get("run"):
        parts += _of_run(run)
    return "\n\n".join(parts)


def figures(run: Path, recipe: str, machine: str) -> dict[str, Any]:
    """What a run whose train, export and eval are done says of itself.

    Raises MissingInput where no stage has finished.
    """
    view = gather(Run(run))
    more = [task for task in view.tasks if task != view.lead]
    return {
        "recipe": recipe,
        "run": view.run.name,
        "base": view.recipe["model"]["base"],
        "date": _finished(run),
        "machine": machine,
        **_trained(view),
        "bytes": _adapter(view) | view.sizes,
        "seconds": _seconds(run),
        "tasks": {
            name: {"questions": task["items"], "engines": _scores(task["engines"])}
            for name, task in view.tasks.items()
        },
        "aloud": [answer for task in more for answer in _aloud(view, task)],
    }


def _trained(view: RunView) -> dict[str, Any]:
    facts, rows = view.facts("train"), view.stats["rows"]
    losses = {"final": facts["final_loss"], "eval": facts["eval_loss"]}
    return {
        "device": facts["device"],
        "method": view.recipe["train"]["method"],
        "rows": {split: rows[split] for split in ("train", "eval", "test")},
        "steps": view.manifests["train"].counts["steps"],
        "parameters": {each: facts[f"{each}_parameters"] for each in ("trainable", "total")},
        "loss": {"first": view.steps[0]["loss"], **losses},
        "general_loss": {when: facts.get(f"general_loss_{when}") for when in ("before", "after")},
        "peak_memory_bytes": view.log["peak_memory_bytes"],
    }


def _seconds(run: Path) -> dict[str, float]:
    """Stage -> what its work took; what a stage has not done is not there."""
    found = {}
    for stage, names in TOOK.items():
        path = run / stage / "timing.json"
        if path.exists():
            timing = json.loads(path.read_text(encoding="utf-8"))
            found[stage] = round(sum(timing[name] for name in names), 1)
    return found


def _finished(run: Path) -> str:
    return date.fromtimestamp((run / "eval" / "manifest.json").stat().st_mtime).isoformat()


def _adapter(view: RunView) -> dict[str, int]:
    weights = view.manifests["train"].outputs.get("adapter/adapter_model.safetensors")
    return {"adapter": weights.bytes} if weights else {}


def _scores(engines: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {
        engine: {name: scores[name] for name in SHOWN if name in scores}
        for engine, scores in engines.items()
    }


def _aloud(view: RunView, task: str) -> Iterator[dict[str, str]]:
    """What base and tuned said to each question of a short task."""
    if view.tasks[task]["items"] > READ_ALOUD:
        return
    format = chat_format(view.recipe["chat"]["format"])
    said: dict[str, dict[str, str]] = {}
    for answer in answers_of(view, task):
        if answer["engine"] in ("base", view.tuned) and answer["sample"] == 0:
            who = "base" if answer["engine"] == "base" else "tuned"
            by_question = said.setdefault(answer["question"], {"question": answer["question"]})
            by_question[who] = parse_reply(answer["text"], format).answer
    yield from said.values()


def _known(each: Mapping[str, Any]) -> str:
    """Its value, or the one that stands at `from` in another file under benchmarks/."""
    value = each.get("value")
    if place := each.get("from"):
        file, _, path = place.partition("#")
        value = json.loads((ROOT / "benchmarks" / file).read_text(encoding="utf-8"))
        for key in path.split("."):
            value = value[key]
    return str(UNITS[each["unit"]](value)) if "unit" in each else str(value)


def _of_run(run: Mapping[str, Any]) -> Iterator[str]:
    yield _headline(run)
    yield _table(("Training", ""), _training(run))
    for name, task in run["tasks"].items():
        if any(task["engines"].values()):
            yield _table(*_engines(name, task, run["bytes"]))
    if run["aloud"]:
        rows = [[_words(each.get(key, "")) for key in ("question", "base", "tuned")]
                for each in run["aloud"]]  # fmt: skip
        yield _table(("Prompt", "Base", "Tuned"), rows)


def _headline(run: Mapping[str, Any]) -> str:
    from pipeline.recipe import load

    meant = load(run["recipe"]).recipe.model.base
    what = "This recipe" if run["base"] == meant else "**A tiny stand-in, not this recipe's base**"
    return (
        f"{what}: run `{run['run']}` on `{run['base']}`, {run['date']}, {run['machine']}, "
        f"trained on the {'CPU' if run['device'] == 'cpu' else 'GPU'}."
    )


def _training(run: Mapping[str, Any]) -> list[tuple[str, str]]:
    rows, loss, general = run["rows"], run["loss"], run["general_loss"]
    trained, total = run["parameters"]["trainable"], run["parameters"]["total"]
    times = [f"{stage} {duration(seconds)}" for stage, seconds in run["seconds"].items()]
    memory = [f"{kind.replace('_', ' ')} {size(n)}" for kind, n in run["peak_memory_bytes"].items()]
    found = [
        ("rows", f"{rows['train']:,} trained, {rows['eval']:,} eval, {rows['test']:,} test"),
        ("method, steps", f"{run['method']}, {run['steps']:,}"),
        ("trainable parameters", f"{trained:,} of {total:,}, {100 * trained / total:.2f}%"),
        ("training loss", f"{number(loss['first'])} first, {number(loss['final'])} last"),
        ("loss on eval rows", "" if loss["eval"] is None else number(loss["eval"])),
        ("loss on general rows", _before_after(general)),
        ("peak memory", listed(memory)),
        ("time", ", ".join(times)),
    ]
    return [row for row in found if row[1]]


def _before_after(loss: Mapping[str, float | None]) -> str:
    before, after = loss["before"], loss["after"]
    return "" if before is None else f"{number(before)} before, {number(after)} after"


def _engines(
    name: str, task: Mapping[str, Any], sizes: Mapping[str, int]
) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Heads and rows: each metric with its 95% interval."""
    engines = task["engines"]
    metrics = [each for each in SHOWN if any(each in scores for scores in engines.values())]
    heads = (f"{name}, {task['questions']} questions", "Size", *(metric(m).label for m in metrics))
    rows = [
        (engine, size(sizes[engine]) if engine in sizes else "", *(_cell(m, s) for m in metrics))
        for engine, s in engines.items()
    ]
    return heads, rows


def _cell(name: str, scores: Mapping[str, Any]) -> str:
    kind, value = metric(name), scores.get(name)
    between = kind.between(value)
    return f"{kind.shown(value)} ({between})" if between else kind.shown(value)


def _words(text: str) -> str:
    """What a model said, as code: on one line, clipped, nothing in it obeyed."""
    line = " ".join(str(visible(text)).split()).replace("`", "'").replace("|", "\u00a6")
    clipped = line if len(line) <= LONGEST else f"{line[:LONGEST]}…"
    return f"`{clipped}`" if clipped else "(nothing)"


def _table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [list(heads)]
    lines += [["---"] * len(lines[0]), *map(list, rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def keep(run: Path, name: str) -> Path:
    """Write the run's figures into the file of that page; what is known beside them stays."""
    from record_run import processor

    machine = f"{processor()}, {platform.system()}, Python {platform.python_version()}"
    path = KEPT / f"{name}.json"
    kept = read(name) if path.exists() else {"schema": 1}
    text = json.dumps(kept | {"run": figures(run, name, machine)}, indent=2, ensure_ascii=False)
    path.write_text(f"{text}\n", encoding="utf-8")
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description="Keep a run's figures; write the recipes' pages.")
    parser.add_argument("run", type=Path, nargs="?", help="a finished run's folder")
    parser.add_argument("--for", dest="name", help="the recipe whose page shows it")
    options = parser.parse_args()
    if (options.run is None) != (options.name is None):
        parser.error("name both: a run, and --for the recipe")
    if options.run:
        keep(options.run, options.name)
    for page in sorted(PAGES.glob("*.md")):
        page.write_text(with_results(page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
