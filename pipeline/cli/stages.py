"""train, export, register, run."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.options import (
    dry_run_option,
    force_option,
    open_work,
    run_options,
    yes_option,
)
from pipeline.cli.stage import finished, preview, say_next

if TYPE_CHECKING:
    from pipeline.run import Run
    from pipeline.train.launch import Launch

_LAUNCH_OPTIONS = (
    click.option("--nproc", type=click.IntRange(1), default=1, metavar="N",
                 help="Processes that train on this machine, one for each GPU."),
    click.option("--launcher", type=click.Choice(["torchrun", "accelerate"]), default="torchrun",
                 help="What starts them."),
    click.option("--nnodes", type=click.IntRange(1), default=1, metavar="M",
                 help="Machines that train, each started with the same command."),
    click.option("--node-rank", type=click.IntRange(0), default=0, metavar="R",
                 help="This machine's number; 0 does the stages, the others train beside it."),
    click.option("--rendezvous", metavar="HOST:PORT", help="Machine 0 and a free port of it."),
)  # fmt: skip


def launch_options(command: Callable[..., None]) -> Callable[..., None]:
    """--nproc, --launcher, --nnodes, --node-rank, --rendezvous: as `launch` of the command."""

    @wraps(command)
    def with_launch(
        nproc: int, launcher: Any, nnodes: int, node_rank: int, rendezvous: str | None, **rest: Any
    ) -> None:
        from pipeline.train.launch import Launch, check_alone

        check_alone()
        command(launch=Launch(nproc, launcher, nnodes, node_rank, rendezvous), **rest)

    for option in reversed(_LAUNCH_OPTIONS):
        with_launch = option(with_launch)
    return with_launch


@click.command()
@run_options
@launch_options
@force_option
@dry_run_option
def train(force: bool, dry_run: bool, as_json: bool, launch: Launch, **options: Any) -> None:
    """Fine-tune with Unsloth: LoRA in 4 or 16 bits, or in full.

    \b
    Examples:
      pipe train --set train.lora.r=32 --set train.learning_rate=1e-4
      pipe train --nproc 4
      pipe train --nproc 8 --nnodes 2 --node-rank 0 --rendezvous node0:29500
    """
    from pipeline import workflow

    work = open_work(**options, force=force)
    if dry_run:
        return preview(work, ["train"], as_json)
    if launch.node:
        return workflow.take_part(work, launch)
    manifest = workflow.train(work, launch)
    finished(manifest, as_json, work.run.folder("train"))
    if not as_json:
        say_next("pipe export")


@click.command()
@run_options
@force_option
@dry_run_option
@click.option("--register/--no-register", default=None, help="Insist on Ollama, or leave it out.")
@click.option("--quantize", "types", multiple=True, metavar="TYPE", help="GGUF type; repeatable.")
@click.option("--tensor-type", "tensor_types", multiple=True, metavar="REGEX=TYPE",
              help="Another type for some tensors; repeatable.")  # fmt: skip
@click.option("--imatrix", metavar="train|FILE", help="Importance matrix: collected, or a file.")
@click.option("--adapter-gguf", is_flag=True, help="Also write the adapter alone.")
@click.option("--base", type=click.Path(path_type=Path), help="Outside a run: the 16-bit base.")
@click.option("--adapter", type=click.Path(path_type=Path), help="Outside a run: the adapter.")
@click.option("--out", type=click.Path(path_type=Path), help="Outside a run: where files go.")
@click.option("--own-template", is_flag=True, help="Outside a run: keep the base's chat template.")
def export(
    force: bool,
    dry_run: bool,
    as_json: bool,
    register: bool | None,
    overrides: tuple[str, ...],
    **options: Any,
) -> None:
    """Merge, quantize to GGUF and register with Ollama.

    \b
    Examples:
      pipe export --quantize Q5_K_M --quantize Q8_0
      pipe export --quantize Q3_K_M --imatrix train --tensor-type ffn_down=q4_k
      pipe export --base DIR --adapter DIR --out DIR --quantize Q4_K_M --no-register
    """
    from pipeline import workflow

    outside = {key: options.pop(key) for key in ("base", "adapter", "out", "own_template")}
    wishes = {key: options.pop(key) for key in ("types", "tensor_types", "imatrix", "adapter_gguf")}
    work = open_work(**options, overrides=(*overrides, *_wished(**wishes)), force=force)
    if any(outside.values()):
        if register or dry_run or as_json:
            raise click.UsageError("--register, --dry-run and --json need a run.")
        return _export_folder(work, **outside)
    if dry_run:
        return preview(work, ["export", "serve"], as_json)
    manifest = workflow.export(work, freed=True)
    if register:
        workflow.register(work)
    elif register is None:
        workflow.register_if_served(work)
    finished(manifest, as_json, work.run.folder("export"))
    if not as_json:
        say_next(f"pipe check; to talk to it: {_talk(work.run)}")


def _talk(run: Run) -> str:
    """What talks to the exported files: Ollama's own command, where it was given them."""
    served = run.last("serve")
    if served is None or served.inputs != run.input_entry("export"):
        return "pipe chat"
    return f"ollama run {served.facts['models'][0]['name']}"


def _wished(
    types: tuple[str, ...], tensor_types: tuple[str, ...], imatrix: str | None, adapter_gguf: bool
) -> list[str]:
    """The options as recipe overrides."""
    wished = {
        "quantize": [type.upper() for type in types],
        "tensor_types": list(tensor_types),
        "importance": imatrix and {"file": None if imatrix == "train" else imatrix},
        "adapter_gguf": adapter_gguf,
    }
    asked = {key: value for key, value in wished.items() if value}
    return [f"export.{key}={json.dumps(value)}" for key, value in asked.items()]


def _export_folder(
    work: Any, base: Path | None, adapter: Path | None, out: Path | None, own_template: bool
) -> None:
    from pipeline import workflow

    if not (base and out):
        raise click.UsageError("Outside a run, name --base and --out; --adapter if there is one.")
    workflow.export_folder(work.recipe, (base, adapter), out, work.emit, own_template)
    there, name = shlex.quote(str(out)), work.recipe.serve.name
    click.echo(f"Done. Next: cd {there} && ollama create {name} -f Modelfile", err=True)


@click.command()
@run_options
@click.option(
    "--force",
    is_flag=True,
    help="Replace a model of that name, whoever made it, and a damaged file of ours.",
)
@click.option("--name", help="Another name in Ollama than serve.name.")
@click.option("--allow-remote", is_flag=True, help="OLLAMA_HOST may be another machine.")
def register(
    force: bool, name: str | None, allow_remote: bool, as_json: bool, **options: Any
) -> None:
    """Give the exported files to Ollama and ask once.

    Example: pipe register --name my-thinker
    """
    from pipeline import workflow

    work = open_work(**options)
    manifest = workflow.register(work, name=name, replace=force, allow_remote=allow_remote)
    if as_json:
        return finished(manifest, as_json, work.run.folder("serve"))
    for model in manifest.facts["models"]:
        click.echo(f"{model['name']}: {model['type']}, {model['weights']}; file {model['blob']}")
    click.echo(f"Next: ollama run {manifest.facts['models'][0]['name']}", err=True)


@click.command("run")
@run_options
@launch_options
@force_option
@dry_run_option
@yes_option
def run_all(
    force: bool, dry_run: bool, accept: bool, as_json: bool, launch: Launch, **options: Any
) -> None:
    """prepare, train, export and eval; skips what is done.

    \b
    Examples:
      pipe run -r demo
      pipe run --nproc 4
    """
    from pipeline import workflow
    from pipeline.cli.evaluate import show_scores

    work = open_work(**options, force=force, accept=accept)
    if dry_run:
        return preview(work, ["data", "train", "export", "serve", "eval"], as_json)
    if launch.node:
        return workflow.take_part(work, launch)
    workflow.run_all(work, launch)
    show_scores(work.run, as_json)
    if not as_json:
        say_next(f"pipe check, then pipe report; to talk to it: {_talk(work.run)}")
