"""Prompts: one conversation is the same text and the same ids wherever it is rendered."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from pipeline.chat import Conversation, Message
from pipeline.check.conversations import Case, as_sent, cases
from pipeline.check.gates import Finding
from pipeline.check.subject import Subject
from pipeline.errors import PipeError

_RENDERS = (0, 11, 5)
"""Ollama shows rendered prompts since then."""


def transformers_prompts(subject: Subject) -> Finding:
    """The tokenizer saved with the adapter gives the text that was trained on."""

    def render(case: Case) -> str:
        return str(
            subject.run.tokenizer.apply_chat_template(
                list(case.conversation),
                tokenize=False,
                add_generation_prompt=not case.prefill,
                continue_final_message=case.prefill,
                enable_thinking=case.thinking,
            )
        )

    return _same_text(subject, render)


def llama_cpp_prompts(subject: Subject) -> Finding:
    """So does the Jinja template that the file carries."""
    return _same_text(subject, lambda c: subject.llama.render(c.conversation, thinking=c.thinking))


def ollama_prompts(subject: Subject) -> Finding:
    """So does Ollama, asked as our clients ask it; BOS it adds as an id."""

    def render(case: Case) -> str:
        return bos_of(subject) + served_prompt(subject, case)

    compared, wrong = _same_text(subject, render)
    return f"{compared}; {_renderer(subject)}", wrong


def token_ids(subject: Subject) -> Finding:
    """Training, Transformers and llama.cpp read a prompt as the same ids."""
    wrong, asked = [], prompts(subject)
    for case, text in asked:
        trained = subject.run.encoder.prompt(case.conversation, thinking=case.thinking)
        theirs = subject.run.tokenizer(text, add_special_tokens=False)["input_ids"]
        native = subject.llama.tokenize(text, add_bos=False)
        if not trained == theirs == native:
            wrong.append(f"{case}: {_first_difference(trained, theirs, native)}")
    form = subject.run.encoder.format.normal_form
    return f"ids of {len(asked)} prompts{f', text in {form}' if form else ''}", wrong


def token_counts(subject: Subject) -> Finding:
    """Ollama evaluates as many prompt tokens as there are ids."""
    wrong, asked = [], 0
    for case, text in prompts(subject):
        expected = len(ids_of(subject, text))
        if expected > subject.n_ctx - 2:  # it would be cut: that is the context's gate
            continue
        asked += 1
        found = _evaluated(subject, as_sent(case.conversation, subject.format), case.thinking)
        if found != expected:
            wrong.append(f"{case}: {expected} ids, {found} evaluated")
    return f"prompt_eval_count of {asked} prompts", wrong


def control_tokens(subject: Subject) -> Finding:
    """The text of a control token in a message stays text, sent as our clients send it.

    Training encodes it as text always; llama.cpp and Ollama parse a raw one as control. So they do
    with the thinking's tags, where these are tokens.
    """
    format = subject.run.encoder.format
    name = format.end_of_turn
    tags = f" {format.think} {format.end_think}" if subject.run.encoder.tag_ids else ""
    raw: list[Message] = [{"role": "user", "content": f"Say {name} twice: {name}{tags}"}]
    trained = subject.run.encoder.prompt(raw)
    parsed, neutral = (ids_of(subject, format.render(c)) for c in (raw, as_sent(raw, format)))
    spelled = {
        "training": _controls(subject, trained),
        "sent by our clients": _controls(subject, neutral),
    }
    wrong = [
        f"{place}: {name} in a message becomes {count} control tokens"
        for place, count in spelled.items()
        if count
    ]
    found = {**spelled, "raw in llama.cpp": _controls(subject, parsed)}
    said = ", ".join(f"{place} {count}" for place, count in found.items())
    if "server" in subject.parts:
        counts = {len(parsed): found["raw in llama.cpp"], len(trained): 0}
        said += f", raw in Ollama {counts.get(_evaluated(subject, raw, True), 'unknown')}"
        if (counted := _evaluated(subject, as_sent(raw, format), True)) != len(neutral):
            wrong.append(f"Ollama evaluates {counted} ids of {len(neutral)}")
    return f"control tokens from two {name}{tags} in a message: {said}", wrong


def prompts(subject: Subject) -> list[tuple[Case, str]]:
    """Every case with the text that it was trained as.

    Where the format is not ours it is what the file's own template gives, if it takes the case.
    Text is in the Unicode form that the format's tokenizer gives it, which no template can.
    """
    asked = (_in_form(subject, case) for case in cases(thinks=subject.thinks))
    found = [(case, _expected(subject, case)) for case in asked]
    return [(case, text) for case, text in found if text is not None]


def ids_of(subject: Subject, text: str) -> list[int]:
    """Ids of a prompt's text as a server reads it: BOS added once, control tokens parsed."""
    return subject.llama.tokenize(text.removeprefix(bos_of(subject)), add_bos=True)


def bos_of(subject: Subject) -> str:
    """BOS as text, where the model begins with it."""
    if subject.format is not None:
        return subject.format.bos or ""
    number = subject.facts["bos"]
    known = subject.facts["add_bos"] and number is not None and 0 <= number < len(subject.tokens)
    return subject.tokens[number] if known else ""


def served_prompt(subject: Subject, case: Case) -> str:
    """What Ollama's template makes of a case, without BOS. Raises PipeError for an old server."""
    if subject.version and subject.version < _RENDERS:
        raise PipeError(
            "This Ollama does not show rendered prompts.",
            "Ollama does since 0.11.5: https://ollama.com/download",
        )
    sent = as_sent(case.conversation, subject.format)
    think = case.thinking if subject.thinks else None
    return subject.ollama.rendered_prompt(subject.name, sent, think=think)


def own_prompt(subject: Subject, case: Case) -> str:
    """What the file's own Jinja template makes of a case, without the BOS that it begins with."""
    text = subject.llama.render(case.conversation, thinking=case.thinking)
    return text.removeprefix(bos_of(subject))


def _in_form(subject: Subject, case: Case) -> Case:
    if subject.format is None:
        return case
    normal = subject.format.normal
    turns = [Message(role=m["role"], content=normal(m["content"])) for m in case.conversation]
    return replace(case, conversation=turns)


def _expected(subject: Subject, case: Case) -> str | None:
    if subject.format is not None:
        return subject.format.render(case.conversation, thinking=case.thinking)
    try:
        return subject.llama.render(case.conversation, thinking=case.thinking)
    except PipeError:  # many a template refuses a system turn, or a prefill
        return None


def _same_text(subject: Subject, render: Callable[[Case], str]) -> Finding:
    asked, wrong = prompts(subject), []
    for case, expected in asked:
        found = render(case)
        if found != expected:
            wrong.append(f"{case}: {_parting(expected, found)}")
    conversations = len({case.name for case, _ in asked})
    return f"{len(asked)} prompts of {conversations} conversations", wrong


def _renderer(subject: Subject) -> str:
    """Which template Ollama chose, told by outer spaces, which the file's own trims or not."""
    spaced: list[Message] = [{"role": "user", "content": "  spaced  "}]
    theirs = subject.ollama.rendered_prompt(subject.name, spaced)
    if "file" not in subject.parts:
        return "Ollama's renderer could not be told"
    ours = subject.llama.render(spaced).removeprefix(bos_of(subject))
    if theirs.removeprefix(bos_of(subject)) == ours:
        return "Ollama renders by the file's Jinja template"
    if "  spaced  " in theirs:
        return "Ollama renders by its Go TEMPLATE"
    return "Ollama renders by neither its Go TEMPLATE nor the file's Jinja template"


def _evaluated(subject: Subject, conversation: Conversation, thinking: bool) -> int:
    think = thinking if subject.thinks else None
    reply = subject.ollama.chat(
        subject.name, conversation, think=think, options={"num_predict": 1, "temperature": 0}
    )
    return reply.prompt_eval_count


def _controls(subject: Subject, ids: Sequence[int]) -> int:
    """Control tokens, and tags, beyond those of the format's own frame around one question."""
    controls = subject.control_ids | subject.run.encoder.tag_ids
    frame = subject.run.encoder.prompt([{"role": "user", "content": "?"}])
    return sum(i in controls for i in ids) - sum(i in controls for i in frame)


def _parting(expected: str, found: str) -> str:
    """Both texts from a little before they part."""
    pairs = enumerate(zip(expected, found, strict=False))
    shorter = min(len(expected), len(found))
    start = max(0, next((n for n, (a, b) in pairs if a != b), shorter) - 20)
    return f"expected {expected[start : start + 60]!r}, found {found[start : start + 60]!r}"


def _first_difference(*sequences: Sequence[int]) -> str:
    for position, ids in enumerate(zip(*sequences, strict=False)):
        if len(set(ids)) > 1:
            return f"at position {position} ids are {ids}"
    return f"lengths are {[len(s) for s in sequences]}"
