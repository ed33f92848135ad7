"""Read a record by its columns: dotted paths, chats, and the flags that judge its replies."""

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.data.read.replies import RejectedError, number_text
from pipeline.recipe import Columns

Record = Mapping[str, Any]

_ROLES = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
}
_TRUE, _FALSE = {"yes", "true", "correct", "1"}, {"no", "false", "incorrect", "0"}


def value_at(record: Record, path: str | None) -> Any:
    """What stands at a dotted path; None where any part of it is absent."""
    if path is None or "." not in path:
        return None if path is None else record.get(path)
    value: Any = record
    for part in path.split("."):
        if isinstance(value, Mapping):
            value = value.get(part)
        elif isinstance(value, list) and part.isdecimal():
            value = value[int(part)] if len(part) < 10 and int(part) < len(value) else None
        else:
            return None
    return value


def select(columns: Columns, record: Record) -> None:
    """Raises RejectedError not_selected where a column of `where` has none of its values."""
    for column, values in columns.where.items():
        value = value_at(record, column)
        text = value if value is None or isinstance(value, str) else number_text(value)
        # YAML writes the truth values small
        known = {text, text.lower()} if isinstance(value, bool) and text else {text}
        if known.isdisjoint(values):
            raise RejectedError("not_selected")


def exchange(chat: object, *, replied: bool) -> tuple[object, object, object]:
    """System, user and assistant text of a chat that is one exchange, none of them checked.

    Without `replied` the chat must end with the user. Raises RejectedError: not_text,
    not_one_exchange.
    """
    if not isinstance(chat, list) or not all(isinstance(turn, Mapping) for turn in chat):
        raise RejectedError("not_text")
    turns = {_role(turn): _either(turn, "content", "value") for turn in chat}
    wanted = ["user", "assistant"] if replied else ["user"]
    if len(turns) < len(chat) or list(turns) not in (wanted, ["system", *wanted]):
        raise RejectedError("not_one_exchange")
    return turns.get("system"), turns["user"], turns.get("assistant")


def _role(turn: Record) -> str | None:
    name = _either(turn, "role", "from")
    return _ROLES.get(name) if isinstance(name, str) else None


def _either(turn: Record, key: str, other: str) -> Any:
    value = turn.get(key)
    return turn.get(other) if value is None else value


def verified(columns: Columns, record: Record, count: int) -> Sequence[int]:
    """Numbers of the complete and correct among `count` candidates, the more trusted flag first.

    A candidate is correct where any flag says so. Raises RejectedError: bad_flags, incomplete,
    incorrect.
    """
    whole: Sequence[int] = range(count)
    if columns.complete:
        flags = _flags(record, columns.complete, count)
        if flags is None:
            raise RejectedError("bad_flags")
        whole = [index for index in whole if flags[index]]
        if count and not whole:
            raise RejectedError("incomplete")
    if not columns.correct:
        return whole
    all_flags = [_flags(record, column, count) for column in columns.correct]
    judged = [flags for flags in all_flags if flags is not None]
    # a judge that saw only some rows leaves null in the others
    if not judged:
        raise RejectedError("bad_flags")
    right = [index for flags in judged for index in whole if flags[index]]
    if count and not right:
        raise RejectedError("incorrect")
    return right


def _flags(record: Record, column: str, count: int) -> list[bool | None] | None:
    """One flag a candidate, a single one for all of them; None where the column is unknown."""
    value = value_at(record, column)
    if isinstance(value, list):
        if len(value) != count:
            raise RejectedError("bad_flags")
        return [_flag(each) for each in value]
    flag = _flag(value)
    return None if flag is None else [flag] * count


def check_flags(columns: Columns, record: Record) -> None:
    """A single reply is correct where one flag says so, or none denies it.

    Raises RejectedError: bad_flags, incomplete, incorrect.
    """
    if columns.complete and _row_flag(record, columns.complete) is False:
        raise RejectedError("incomplete")
    verdicts = {_row_flag(record, column) for column in columns.correct}
    if False in verdicts and True not in verdicts:
        raise RejectedError("incorrect")


def _row_flag(record: Record, column: str) -> bool | None:
    value = value_at(record, column)
    if isinstance(value, list):
        raise RejectedError("bad_flags")
    return _flag(value)


def _flag(value: object) -> bool | None:
    if isinstance(value, str):
        word = value.strip().lower()
        return True if word in _TRUE else False if word in _FALSE else None
    return bool(value) if isinstance(value, int | float) and value in (0, 1) else None
