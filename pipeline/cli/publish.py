"""publish: the model, its files and its card, to the hub."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.options import dry_run_option, open_work, run_options

if TYPE_CHECKING:
    from pipeline.publish import Plan, Published


@click.command()
@click.argument("repository", metavar="OWNER/NAME")
@run_options
@click.option("--private", is_flag=True, help="Only you, or the organization, see it.")
@click.option(
    "--only", type=click.Choice(["adapter", "gguf"]), help="The weights as trained, or the GGUFs."
)
@click.option("--force", is_flag=True, help="Though a check failed, or data forbid it.")
@dry_run_option
def publish(
    repository: str,
    private: bool,
    only: Any,
    force: bool,
    dry_run: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Push adapter, GGUFs and a model card to the hub.

    The token is HF_TOKEN of the environment, or what `hf auth login` left. An upload that was cut
    off goes on when it is run again. --dry-run shows the files and the card, and asks no server.

    Example: pipe publish me/Llama-3.2-3B-r1 --private
    """
    from pipeline.publish import Wish
    from pipeline.workflow.publish import planned
    from pipeline.workflow.publish import publish as send

    work = open_work(**options)
    wish = Wish(repository, private, only, force)
    if dry_run:
        return _show_plan(planned(work, wish), as_json)
    if not sys.stderr.isatty():
        from huggingface_hub.utils.tqdm import disable_progress_bars

        disable_progress_bars()  # a log would be full of the client's own
    _show(send(work, wish), as_json)


def _show_plan(plan: Plan, as_json: bool) -> None:
    from pipeline.cli.show import say_json

    files = {path: vars(item.entry) for path, item in plan.items.items()}
    if as_json:
        return say_json({"repository": plan.wish.repository, "files": files, "card": plan.card})
    click.echo(f"{plan.wish.repository}: {len(files)} files")
    for path, entry in files.items():
        click.echo(f"  {entry['bytes']:>14,}  {path}")
    click.echo(f"\n{plan.card}", nl=False)


def _show(published: Published, as_json: bool) -> None:
    from pipeline.cli.show import say_json

    if as_json:
        return say_json(published.as_json())
    told = f"commit {published.commit}" if published.changed else "no change, no new commit"
    click.echo(f"{published.url}: {len(published.files)} files, {told}")
