"""init and recipes."""

from __future__ import annotations

import os
from pathlib import Path

import click

from pipeline.errors import PipeError

_TEMPLATE = """\
# A recipe for `pipe`. Every key that stands nowhere here comes from the one it extends:
#   pipe recipes show {extends}
extends: {extends}
name: {name}

# model:
#   base: unsloth/Llama-3.2-3B-Instruct   # hub id or folder, always the 16-bit weights
#   max_seq_length: 4096                  # longer rows are dropped, never cut
# data:
#   sources:
#     - dataset: ServiceNow-AI/R1-Distill-SFT   # hub id, or a jsonl or parquet file
#       config: v0
#       limit: 20000
# train:
#   learning_rate: 0.0002
#   lora: {{r: 32, alpha: 32}}
# export:
#   quantize: [Q4_K_M, Q8_0]              # the first gets the plain name in Ollama
serve:
  name: my-model                          # then: ollama run my-model
"""


@click.command()
@click.option("--extends", default="llama3.2-3b-r1", show_default=True, help="Start from this.")
@click.option("--name", default="my-run", show_default=True, help="Name of the run's folder.")
@click.option("--force", is_flag=True, help="Replace a pipe.yaml that is there.")
def init(extends: str, name: str, force: bool) -> None:
    """Write a commented pipe.yaml here.

    Example: pipe init --extends demo
    """
    from pipeline.recipe import load, written
    from pipeline.run.files import explained_writes

    load(extends, [f"name={written(name)}"])
    path = Path("pipe.yaml")
    if path.exists() and not force:
        raise PipeError("There is a pipe.yaml here already.", "Replace it: pipe init --force")
    with explained_writes(str(path)):
        text = _TEMPLATE.format(extends=written(extends), name=written(name))
        path.write_text(text, encoding="utf-8")
    click.echo("pipe.yaml written. Next: pipe prepare")
    if other := os.environ.get("PIPE_RECIPE"):
        warning = f"PIPE_RECIPE={other} goes before it; to use pipe.yaml: unset PIPE_RECIPE"
        click.secho(warning, fg="yellow", err=True)


@click.group(invoke_without_command=True)
@click.pass_context
def recipes(ctx: click.Context) -> None:
    """List the built-in recipes; show or validate one.

    Example: pipe recipes show demo
    """
    if ctx.invoked_subcommand is None:
        from pipeline.recipe import builtin_names, load

        for name in builtin_names():
            click.echo(f"{name:22} {load(name).recipe.description}")


@recipes.command()
@click.argument("name", required=False)
def show(name: str | None) -> None:
    """Every value of a recipe and where it came from.

    Example: pipe recipes show llama3.2-1b-r1
    """
    from pipeline.recipe import load, written

    loaded = load(name)
    for key, value in loaded.values.items():
        click.echo(f"{f'{key}: {written(value)}':70}  # {loaded.origins[key]}")


@recipes.command()
@click.argument("name", required=False)
def validate(name: str | None) -> None:
    """Exit 2 with every wrong key, or 0.

    Example: pipe recipes validate pipe.yaml
    """
    from pipeline.recipe import load

    click.echo(f"{load(name).recipe.name} is a valid recipe.")
