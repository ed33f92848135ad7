"""plan: memory, disk and time of a training before it begins, and which model to take."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.options import open_work, run_options
from pipeline.cli.table import draw, table

if TYPE_CHECKING:
    from pipeline.study.plan import Choice, Plan
    from pipeline.study.plan.fit import Verdict

USES = ("reasoning", "code", "chat", "classification")
_CARD = 24.0
"""GB of a card, where --use comes without --vram."""
_PARTS = {
    "weights": "base",
    "adapter": "adapter",
    "gradients": "gradients",
    "optimizer": "optimizer",
    "activations": "activations",
    "logits": "loss",
    "allocator": "allocator",
    "overhead": "overhead",
    "step": "a step",
    "total": "peak",
}


@click.command()
@run_options
@click.option("--use", type=click.Choice(USES), help="Instead of a recipe: models for this use.")
@click.option("--vram", type=click.FloatRange(1), metavar="GB", help="The memory there is.")
@click.option("--calibrate", is_flag=True, help="Train a few steps here, for the time.")
def plan(
    use: str | None, vram: float | None, calibrate: bool, as_json: bool, **options: Any
) -> None:
    """What a training needs: memory, disk, time; which model.

    Fetches nothing. Sizes of cards are in GB of 2**30 bytes, all others in GB of 10**9.

    \b
    Examples:
      pipe plan --set train.method=lora --vram 16
      pipe plan --calibrate
      pipe plan --use reasoning --vram 12
    """
    from pipeline.cli.show import say_json
    from pipeline.study import plan as study

    if use:
        if calibrate or any(options.values()):
            raise click.UsageError(
                "--use looks at the catalogue: it takes --vram and --json alone."
            )
        size = vram or _CARD
        found = study.choices(use, size)
        if as_json:
            return say_json(_as_json(use, size, found))
        return _show_choices(use, size, found)
    made = study.plan(open_work(**options), gigabytes=vram, measure=calibrate)
    if as_json:
        return say_json(made.as_json())
    for line in _facts(made):
        click.echo(line)
    _show_memory(made)
    _show_verdicts(made)
    _show_disk(made)
    for line in _time(made):
        click.echo(line)
    click.echo("When not to fine-tune at all: pipe plan --use chat")


def _as_json(use: str, vram: float, found: list[Choice]) -> dict[str, Any]:
    from dataclasses import asdict

    from pipeline.study.plan import ADVICE, catalogue

    known = catalogue()
    return {
        "schema": 1,
        "use": use,
        "gigabytes": vram,
        "why": known.uses[use].why,
        "models": [choice.as_json() for choice in found],
        "out_of_scope": [dict(each) for each in known.out_of_scope],
        "advice": [asdict(each) for each in ADVICE],
    }


def _show_choices(use: str, vram: float, found: list[Choice]) -> None:
    """What fits as a table, what does not in a line, and when not to fine-tune."""
    from pipeline.study.plan import ADVICE, catalogue

    known = catalogue()
    asked = known.uses[use]
    click.echo(f"{use} on {vram:g} GB: {asked.why}.")
    click.echo(
        f"Rows of {asked.max_seq_length:,} tokens, {asked.batch_size} at once, rank {asked.rank}."
    )
    rows = [
        (c.known.title.removesuffix("-Instruct"), c.method + "*" * bool(c.changes),
         f"{c.total / 2**30:.1f}", f"{c.known.context // 1024}K", c.known.licence, c.why)
        for c in found if c.fits
    ]  # fmt: skip
    columns = ("model", "method", f"of {vram:g} GB", "context", "licence", "why")
    draw(table(columns, rows, left=(0, 1, 4, 5), whole=(0,)))
    for choice in found:
        if choice.fits and choice.changes:
            click.echo(f"* {choice.known.title}: {' '.join(_set(choice.changes))}")
    if too_large := [choice for choice in found if not choice.fits]:
        named = ", ".join(f"{c.known.title} ({c.total / 2**30:.0f} GB)" for c in too_large)
        click.echo(f"Too large: {named}.")
    for each in known.out_of_scope:
        click.echo(f"Not tuned here: {each['name']}: {each['why']}.")
    click.echo("\nBefore any of them, in this order:")
    for advice in ADVICE:
        click.echo(f"  {advice.when} -> {advice.instead}. {advice.why}")


def _facts(made: Plan) -> Iterator[str]:
    found, setting, model = made.found, made.setting, made.found.shape.architecture
    where = "the catalogue's shape, no file of it is here" if not found.folder else found.origin
    yield f"recipe {made.recipe}: {found.name} ({where})"
    licence = f", licence {found.known.licence}" if found.known else ""
    yield (
        f"{found.shape.parameters:,} parameters, {model.layers} layers of {model.hidden}, "
        f"context {found.context:,}{licence}"
    )
    sizes = ", ".join(f"{bits} bits {size / 1e9:.3g} GB" for bits, size in made.nominal.items())
    yield f"all weights at {sizes}"
    yield (
        f"{setting.method} on {'a GPU' if setting.device == 'cuda' else 'the CPU'}: "
        f"{setting.batch_size} rows of {_tokens(made)} at once, checkpointing "
        f"{'on' if setting.gradient_checkpointing else 'off'}, {setting.optimizer}"
    )


def _tokens(made: Plan) -> str:
    """How long a row may be, or the run's longest one is."""
    longest = made.setting.max_seq_length
    if longest == made.longest:
        return f"{longest:,} tokens"
    return f"{longest:,} tokens (the longest here; {made.longest:,} are allowed)"


def _show_memory(made: Plan) -> None:
    """A column for each method, the recipe's own marked."""
    names = [f"{name}*" if name == made.setting.method else name for name in made.methods]
    rows = [
        (said, *(_gigabytes(getattr(memory, part)) for memory in made.methods.values()))
        for part, said in _PARTS.items()
    ]
    where = "the card" if made.setting.device == "cuda" else "RAM"
    draw(table((f"GB of {where}", *names), rows))
    click.echo(
        f"To serve: the GGUF file and {_gigabytes(made.kv_cache)} GB of KV cache for "
        f"{made.context:,} tokens."
    )


def _show_verdicts(made: Plan) -> None:
    """Which memory is enough, and what to change where it is not."""
    sizes = [each.gigabytes for each in made.verdicts[made.setting.method]]
    rows = [
        (f"{size:g} GB", *(_word(found[number]) for found in made.verdicts.values()))
        for number, size in enumerate(sizes)
    ]
    draw(table(("memory", *made.methods), rows, left=range(len(made.methods) + 1)))
    for found in made.verdicts[made.setting.method]:
        if found.fits and found.changes:
            click.echo(f"{found.gigabytes:g} GB: {' '.join(_set(found.changes))}")


def _word(found: Verdict) -> str:
    if not found.fits:
        return f"no, {found.total / 2**30:.1f} at least"
    return "with changes" if found.changes else "fits"


def _show_disk(made: Plan) -> None:
    rows = [
        (item.stage, item.what, "" if item.bytes is None else _gigabytes(item.bytes), item.how)
        for item in made.disk
    ]
    draw(table(("disk", "what", "GB", ""), rows, left=(0, 1, 3)))
    click.echo(f"{_gigabytes(made.free)} GB are free here.")


def _time(made: Plan) -> Iterator[str]:
    """No time is claimed that was not measured."""
    from pipeline.report.words import duration

    time = made.time
    if time.length is None:
        yield "Time: the rows are not known yet; first: pipe prepare"
        return
    work = f"{time.length.steps:,} steps, {time.length.tokens:,} tokens"
    if time.speed is None or time.seconds is None:
        yield f"Time: {work}; how fast is not known here: pipe plan --calibrate"
        return
    speed = time.speed
    yield (
        f"Time: {work} at {speed.tokens_per_second:,.0f} tokens/s ({speed.source}): "
        f"{duration(time.seconds)}"
    )
    if speed.peak_bytes:
        yield f"Memory of that: {_gigabytes(speed.peak_bytes)} GB, measured."


def _gigabytes(size: float) -> str:
    """Two decimals, three below a tenth: 0.00 would tell nothing."""
    return f"{size / 1e9:,.2f}" if size >= 1e8 or size == 0 else f"{size / 1e9:.3f}"


def _set(changes: Mapping[str, Any]) -> list[str]:
    """The changes as options of every command."""
    from pipeline.recipe import written

    return [f"--set {shlex.quote(f'{key}={written(value)}')}" for key, value in changes.items()]
