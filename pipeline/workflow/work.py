"""A recipe, the run it fills, and who listens."""

from dataclasses import dataclass

from pipeline.base import Base, open_base
from pipeline.chat import Encoder, chat_format
from pipeline.plans import base_revision
from pipeline.recipe import Recipe
from pipeline.run import Emit, Run, Stage


@dataclass(frozen=True)
class Work:
    """A recipe, the run it fills, and who listens."""

    recipe: Recipe
    run: Run
    emit: Emit
    force: bool = False
    accept: bool = False
    """Take the columns that were found in a dataset that nobody described."""

    def base(self, *, weights: bool = True) -> Base:
        """The base at the revision that prepare recorded for these same words of the recipe."""
        revision = base_revision(self.recipe, self.run.manifest("data"))
        return open_base(self.recipe.model, revision=revision, weights=weights)

    def needs(self, *stages: Stage) -> None:
        """Raises MissingInput for the first of `stages` that has not finished; hashes nothing.

        Asked before the base is fetched: gigabytes for a command that then refuses.
        """
        for stage in stages:
            if self.run.manifest(stage) is None:
                self.run.require(stage)

    def keep(self) -> None:
        """Write the recipe in force beside the stages."""
        self.run.keep_recipe(self.recipe)

    def encoder(self) -> Encoder:
        """The run's chat format over the base's tokenizer."""
        folder = self.base(weights=False).folder
        return Encoder(
            folder / "tokenizer.json",
            chat_format(self.recipe.chat.format, thinks=self.recipe.chat.thinking),
        )
