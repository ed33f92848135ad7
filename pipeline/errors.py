"""What can go wrong, said in one paragraph with the next step."""


class PipeError(Exception):
    """A failure the user can act on.

    `message` says what was asked and what is there; `hint` is the next command or edit.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


class RecipeError(PipeError):
    """The recipe does not say something that can be done."""

    exit_code = 2


class MissingInput(PipeError):
    """A stage's input is not there: the stage before it has not run."""


class FreedInput(MissingInput):
    """A file of a finished stage is not there because `pipe clean` freed it."""


class ChangedInput(PipeError):
    """A stage's input is not the file that its manifest describes."""


class StaleInput(ChangedInput):
    """A stage was made from another version of a stage that it needs."""


class RunLocked(PipeError):
    """Another `pipe` is working in the same run folder."""


class NativeCrash(PipeError):
    """llama.cpp died in its child process."""


class ServerFailed(PipeError):
    """A model server does not answer, or answers with an error."""


class OllamaUnreachable(ServerFailed):
    """No Ollama server answers at the host asked for."""


class OllamaRefused(ServerFailed):
    """The Ollama server answered with an error."""
