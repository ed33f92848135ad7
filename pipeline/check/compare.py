"""What each gate looks at. Every function returns what it compared and what it found wrong."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from pipeline.chat import Conversation, Encoder, Message
from pipeline.engines.completion import Completion, Decoding
from pipeline.engines.contenders import exported
from pipeline.engines.llamacpp import LlamaCppEngine
from pipeline.engines.ollama import OllamaServer
from pipeline.engines.served import OllamaEngine
from pipeline.recipe import Recipe
from pipeline.run import Run

QUESTIONS = 20
TIE = 0.25
"""Logits. Two engines add the same numbers in another order: below this lead either may win."""

Finding = tuple[str, list[str]]

_USER: Message = {"role": "user", "content": "How many is 12 and 30?"}
_SYSTEM: Message = {"role": "system", "content": "You are a helpful assistant."}
_EARLIER: Message = {"role": "assistant", "content": "It is 42."}
_UNICODE: Message = {"role": "user", "content": "Grüße, 12 naïve 🦙🦙 and 30, 合計は？"}
CONVERSATIONS: dict[str, Conversation] = {
    "no system": [_USER],
    "system": [_SYSTEM, _USER],
    "multi-turn": [_USER, _EARLIER, _USER],
    "system, multi-turn, Unicode": [_SYSTEM, _USER, _EARLIER, _UNICODE],
}


@dataclass
class Subject:
    """A run and the engines that its gates ask."""

    recipe: Recipe
    run: Run
    encoder: Encoder
    server: OllamaServer
    served: str | None
    """The model's name in Ollama; None where it is not registered or no server answers."""
    questions: Sequence[Conversation]
    _llama: LlamaCppEngine | None = field(default=None, init=False)

    @contextmanager
    def opened(
        self, open_gguf: Callable[[Recipe, Run, Encoder, str], LlamaCppEngine]
    ) -> Iterator[None]:
        """Hold the first exported GGUF, the one with the plain name, open in llama.cpp."""
        file = next(iter(self.files.values()))
        self._llama = open_gguf(self.recipe, self.run, self.encoder, file)
        try:
            yield
        finally:
            self._llama.close()

    @property
    def llama(self) -> LlamaCppEngine:
        assert self._llama is not None
        return self._llama

    @property
    def name(self) -> str:
        assert self.served is not None
        return self.served

    @cached_property
    def files(self) -> dict[str, str]:
        return exported(self.recipe, self.run)

    @cached_property
    def tokenizer(self) -> Any:
        """The tokenizer that train saved with the adapter, as Transformers loads it."""
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(self.run.folder("train") / "adapter")

    @cached_property
    def served_answers(self) -> list[Completion]:
        """Ollama's greedy answers to the first questions."""
        engine = OllamaEngine(self.server, self.name, self.encoder.format)
        return list(engine.answers(self.questions, Decoding(self.limit)))

    @property
    def limit(self) -> int:
        return self.recipe.eval.max_new_tokens

    def cases(self) -> Iterator[tuple[str, Conversation, bool]]:
        for name, conversation in CONVERSATIONS.items():
            yield f"{name}, thinking on", conversation, True
            yield f"{name}, thinking off", conversation, False


def llama_cpp_prompts(subject: Subject) -> Finding:
    """The GGUF's own template in llama-cpp-python gives the text that was trained on."""
    return _same_text(subject, lambda c, think: subject.llama.render(c, thinking=think))


def transformers_prompts(subject: Subject) -> Finding:
    """So does the tokenizer saved with the adapter."""

    def render(conversation: Conversation, thinking: bool) -> str:
        return str(
            subject.tokenizer.apply_chat_template(
                list(conversation),
                tokenize=False,
                add_generation_prompt=True,
                enable_thinking=thinking,
            )
        )

    return _same_text(subject, render)


def ollama_prompts(subject: Subject) -> Finding:
    """So does Ollama, which adds BOS as an id."""
    bos = subject.encoder.format.bos

    def render(conversation: Conversation, thinking: bool) -> str:
        return bos + subject.server.rendered_prompt(subject.name, conversation, think=thinking)

    return _same_text(subject, render)


def token_ids(subject: Subject) -> Finding:
    """Training, Transformers and llama.cpp read a prompt as the same ids."""
    wrong = []
    for name, conversation, thinking in subject.cases():
        text = subject.encoder.format.render(conversation, thinking=thinking)
        trained = subject.encoder.prompt(conversation, thinking=thinking)
        theirs = subject.tokenizer(text, add_special_tokens=False)["input_ids"]
        native = subject.llama.tokenize(text, add_bos=False)
        if not trained == theirs == native:
            wrong.append(f"{name}: {_first_difference(trained, theirs, native)}")
    return f"ids of {len(CONVERSATIONS) * 2} prompts", wrong


def token_counts(subject: Subject) -> Finding:
    """Ollama evaluates as many prompt tokens as were trained."""
    wrong = []
    for name, conversation, thinking in subject.cases():
        expected = len(subject.encoder.prompt(conversation, thinking=thinking))
        reply = subject.server.chat(
            subject.name, conversation, think=thinking, options={"num_predict": 1}
        )
        if reply.prompt_eval_count != expected:
            wrong.append(f"{name}: {expected} trained, {reply.prompt_eval_count} evaluated")
    return f"prompt_eval_count of {len(CONVERSATIONS) * 2} prompts", wrong


def one_bos(subject: Subject) -> Finding:
    """A served prompt, BOS added by the server, begins with exactly one."""
    wrong = []
    bos = subject.encoder.format.bos
    bos_id = subject.encoder.prompt([])[0]
    for name, conversation, thinking in subject.cases():
        text = subject.encoder.format.render(conversation, thinking=thinking)
        ids = subject.llama.tokenize(text.removeprefix(bos), add_bos=True)
        if ids[0] != bos_id or ids.count(bos_id) != 1:
            wrong.append(f"{name}: BOS stands {ids.count(bos_id)} times")
    return f"llama.cpp's ids of {len(CONVERSATIONS) * 2} served prompts", wrong


def digests(subject: Subject) -> Finding:
    """What Ollama holds is the exported file, bit for bit."""
    export = subject.run.require("export")
    wrong = []
    for model in subject.run.require("serve").facts["models"]:
        name, file = model["name"], subject.files[model["type"]]
        expected = export.outputs[file].sha256
        if expected not in str(subject.server.show(name).get("modelfile", "")):
            wrong.append(f"{name} is not {file} ({expected[:12]}...)")
    return f"sha256 of {', '.join(subject.files.values())} in /api/show", wrong


def thinks(subject: Subject) -> Finding:
    """Each served answer has one thinking block, an answer without tags, and an end."""
    wrong = [
        f"question {number}: {done.text[:80]!r}, stopped: {done.stopped}"
        for number, done in enumerate(subject.served_answers, 1)
        if not (done.stopped and done.reply.well_formed)
    ]
    total = len(subject.questions)
    compared = f"{total} replies of Ollama, {total - len(wrong)} whole; one in 20 may fail"
    return compared, wrong if len(wrong) > total // 20 else []


def answers_directly(subject: Subject) -> Finding:
    """think=false gives an answer that stops, with no tag in it."""
    engine = OllamaEngine(subject.server, subject.name, subject.encoder.format)
    format = subject.encoder.format
    asked = subject.questions[:5]
    wrong = []
    for done in engine.answers(asked, Decoding(subject.limit), thinking=False):
        tagged = format.think in done.text or format.end_think in done.text
        if not done.stopped or tagged or not done.reply.answer or done.reply.thinking:
            wrong.append(f"{done.text[:80]!r}, stopped: {done.stopped}")
    return f"{len(asked)} replies of Ollama with think=false", wrong


def greedy_answers(subject: Subject) -> Finding:
    """llama-cpp-python and Ollama answer alike, up to a first token that was a near tie."""
    wrong: list[str] = []
    ties: list[str] = []
    ours = subject.llama.answers(subject.questions, Decoding(subject.limit))
    pairs = zip(ours, subject.served_answers, strict=True)
    for number, (mine, theirs) in enumerate(pairs, 1):
        if (
            mine.reply.thinking == theirs.reply.thinking
            and mine.reply.answer == theirs.reply.answer
        ):
            continue
        gap = _gap_at_difference(subject.encoder, mine, theirs)
        said = f"question {number} differs where the lead was {gap:.4f} logits"
        (ties if gap < TIE else wrong).append(said)
    compared = f"{len(subject.questions)} greedy answers, {len(ties)} near ties under {TIE} logits"
    return "; ".join([compared, *ties]), wrong


def _said(completion: Completion) -> tuple[str, str]:
    return completion.reply.thinking, completion.reply.answer


def _same_text(subject: Subject, render: Callable[[Conversation, bool], str]) -> Finding:
    wrong = []
    for name, conversation, thinking in subject.cases():
        expected = subject.encoder.format.render(conversation, thinking=thinking)
        found = render(conversation, thinking)
        if found != expected:
            wrong.append(f"{name}: trained {expected!r}, found {found!r}")
    return f"{len(CONVERSATIONS) * 2} prompts", wrong


def _first_difference(*sequences: Sequence[int]) -> str:
    for position, ids in enumerate(zip(*sequences, strict=False)):
        if len(set(ids)) > 1:
            return f"at position {position} ids are {ids}"
    return f"lengths are {[len(s) for s in sequences]}"


def _gap_at_difference(encoder: Encoder, mine: Completion, theirs: Completion) -> float:
    """The lead in logits of our token at the first place where the texts part."""
    common = 0
    for a, b in zip(mine.text, theirs.text, strict=False):
        if a != b:
            break
        common += 1
    before = len(encoder.content_ids(mine.text[:common]))
    # the letters that agree may end inside a token: the parting lies there or one later
    near = mine.gaps[max(0, before - 1) : before + 1]
    return min(near, default=float("inf"))
