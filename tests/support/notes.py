"""An Emit that keeps the texts of the notes, and lets all else pass."""

from pipeline.run import Event, Note


class Notes(list[str]):
    def __call__(self, event: Event) -> None:
        if isinstance(event, Note):
            self.append(event.text)
