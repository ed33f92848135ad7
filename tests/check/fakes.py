"""A llama.cpp, an Ollama and a subject of a few lines, wrong where a test wants them wrong."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tokenizers import Tokenizer

from pipeline.chat import Conversation, Encoder, chat_format, parse_reply, render_jinja
from pipeline.check.subject import Subject
from pipeline.engines.completion import Completion, Decoding
from pipeline.engines.ollama import ChatReply
from pipeline.errors import OllamaRefused
from tests.support.tokenizer import SPECIALS, tokenizer_json

FORMAT = chat_format("llama3.2-reasoning")
WHOLE = Tokenizer.from_str(tokenizer_json())
TOKENS = [WHOLE.id_to_token(number) for number in range(WHOLE.get_vocab_size())]
IDS = {token: number for number, token in enumerate(TOKENS)}
GOOD = FORMAT.target("10 + 20 = 30", "30 pens.")


def ids(text: str, *, bos: bool) -> list[int]:
    found = list(WHOLE.encode(text, add_special_tokens=False).ids)
    return [IDS[FORMAT.bos], *found] if bos else found


def completion(text: str, *, stopped: bool = True, gap: float = 9.0) -> Completion:
    count = len(ids(text, bos=False)) + stopped
    return Completion(text, parse_reply(text, FORMAT), count, stopped, (gap,) * count)


@dataclass
class FakeLlama:
    template: str = FORMAT.jinja
    add_bos: bool = True
    eog: Sequence[str] = FORMAT.ends
    text: str = GOOD
    gap: float = 9.0

    def render(self, conversation: Conversation, *, thinking: bool = True) -> str:
        turns, begun = list(conversation), ""
        if turns[-1]["role"] == "assistant":
            begun = turns.pop()["content"]
        variables = {"add_generation_prompt": True, "enable_thinking": thinking}
        text = render_jinja(self.template, turns, bos_token=FORMAT.bos, **variables)
        return text + begun

    def tokenize(self, text: str, *, add_bos: bool = True) -> list[int]:
        return ids(text, bos=add_bos and self.add_bos)

    def facts(self) -> dict[str, Any]:
        return {
            "bos": IDS[FORMAT.bos],
            "eos": IDS[FORMAT.end_of_turn],
            "add_bos": self.add_bos,
            "eog": [IDS[name] for name in self.eog],
        }

    def answers(
        self, conversations: Sequence[Conversation], decoding: Decoding, *, thinking: bool = True
    ) -> Iterator[Completion]:
        for _ in conversations:
            yield completion(self.text, gap=self.gap)

    def close(self) -> None: ...


def go_template(conversation: Conversation, thinking: bool) -> str:
    """As modelfiles/llama3.2-reasoning.gotmpl renders: nothing is trimmed, BOS is left out."""
    turns, begun = list(conversation), "" if thinking else FORMAT.empty_thinking
    if turns[-1]["role"] == "assistant":
        begun = turns.pop()["content"]
    text = "".join(
        f"<|start_header_id|>{m['role']}<|end_header_id|>\n\n{m['content']}<|eot_id|>"
        for m in turns
    )
    return f"{text}<|start_header_id|>assistant<|end_header_id|>\n\n{begun}"


@dataclass
class FakeServer:
    """`reply` makes an answer from (conversation, fields of the request)."""

    template: Callable[[Conversation, bool], str] = go_template
    reply: Callable[[Conversation, Mapping[str, Any]], ChatReply] | None = None
    n_ctx: int = 1024
    loaded: int | None = None
    cuts_in_silence: bool = False
    number: str = "0.34.1"
    capabilities: Sequence[str] = ("completion", "thinking")
    modelfile: str = ""
    url: str = "http://127.0.0.1:1"
    is_loopback: bool = True
    asked: list[Mapping[str, Any]] = field(default_factory=list)

    def version(self) -> str:
        return self.number

    def show(self, name: str) -> dict[str, Any]:
        return {"capabilities": list(self.capabilities), "modelfile": self.modelfile}

    def unload(self, name: str) -> None:
        self.asked.append({"unload": name})

    def running(self) -> list[dict[str, Any]]:
        return [{"name": "model:latest", "context_length": self.loaded or self.n_ctx}]

    def rendered_prompt(self, name: str, messages: Conversation, think: bool | None = None) -> str:
        return self.template(messages, think is not False)

    def chat(self, name: str, messages: Conversation, **fields: Any) -> ChatReply:
        self.asked.append({"messages": messages, **fields})
        count = len(ids(self.rendered_prompt(name, messages, fields.get("think")), bos=True))
        if count >= self.n_ctx:
            if fields.get("truncate") is False and not self.cuts_in_silence:
                raise OllamaRefused(f"request ({count} tokens) exceeds the available context size")
            count = self.n_ctx // 2
        made = self.reply or (lambda *_: chat_reply("10 + 20 = 30\n", "30 pens."))
        return replace(made(messages, fields), prompt_eval_count=count)


def chat_reply(thinking: str, content: str, reason: str = "stop") -> ChatReply:
    return ChatReply(thinking, content, reason, 0, 20)


def subject(
    tmp_path: Path, llama: FakeLlama | None = None, server: FakeServer | None = None, **fields: Any
) -> Subject:
    """A run's subject, of whose run there is the encoder only."""
    path = tmp_path / "tokenizer.json"
    path.write_text(tokenizer_json())
    encoder = Encoder(path, FORMAT)
    asked = {
        "files": {"F16": tmp_path / "model.gguf"},
        "questions": [[{"role": "user", "content": f"How many is {n} and 2?"}] for n in range(50)],
        "open_file": lambda _: llama or FakeLlama(),
        "n_ctx": server.n_ctx if server else 1024,
        "limit": 160,
        "format": FORMAT,
        "part": SimpleNamespace(
            encoder=encoder, tokenizer=FakeTokenizer(), trained=SimpleNamespace(is_full=False)
        ),
        "server": server,
        "name": "model",
        **fields,
    }
    made = Subject(**asked)
    made.tokens = TOKENS  # what the header of the file would say
    made.control_ids = frozenset(IDS[name] for name in SPECIALS)
    return made


@dataclass
class FakeTokenizer:
    """Transformers' tokenizer, as far as the gates ask it."""

    template: str = FORMAT.jinja
    shift: int = 0

    def apply_chat_template(
        self,
        conversation: Conversation,
        *,
        tokenize: bool,
        add_generation_prompt: bool,
        continue_final_message: bool,
        enable_thinking: bool,
    ) -> str:
        text = render_jinja(
            self.template,
            conversation,
            bos_token=FORMAT.bos,
            add_generation_prompt=add_generation_prompt,
            enable_thinking=enable_thinking,
        )
        return text.removesuffix(FORMAT.end_of_turn) if continue_final_message else text

    def __call__(self, text: str, *, add_special_tokens: bool) -> dict[str, list[int]]:
        return {"input_ids": [number + self.shift for number in ids(text, bos=False)]}
