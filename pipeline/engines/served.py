"""A model in Ollama, asked as any client asks it."""

from collections.abc import Iterator, Sequence

from pipeline.chat import ChatFormat, Conversation, Reply
from pipeline.engines.completion import Completion, Decoding
from pipeline.engines.ollama import REPEAT_LIMIT, ChatReply, OllamaServer
from pipeline.errors import OllamaRefused


class OllamaEngine:
    """Greedy replies of a served model. Its answers come already split by the server."""

    name = "ollama"

    def __init__(self, server: OllamaServer, model: str, format: ChatFormat) -> None:
        self.server, self.model, self.format = server, model, format

    def answers(
        self, conversations: Sequence[Conversation], decoding: Decoding, *, thinking: bool = True
    ) -> Iterator[Completion]:
        options = {"temperature": decoding.temperature, "num_predict": decoding.max_new_tokens}
        for conversation in conversations:
            try:
                reply = self.server.chat(self.model, conversation, think=thinking, options=options)
            except OllamaRefused as refusal:
                if REPEAT_LIMIT not in refusal.message:
                    raise
                reply = ChatReply("", "", REPEAT_LIMIT, 0, 0)
            yield self._completion(reply)

    def memory_bytes(self) -> int | None:
        return None

    def close(self) -> None:
        """The server keeps the model for its other clients."""

    def _completion(self, chat: ChatReply) -> Completion:
        thinking, answer = chat.thinking.strip(), chat.content.strip()
        tags = (self.format.think, self.format.end_think)
        leaked = any(tag in part for tag in tags for part in (thinking, answer))
        reply = Reply(thinking, answer, bool(thinking and answer and not leaked))
        text = self.format.target(thinking or None, answer)
        return Completion(text, reply, chat.eval_count, chat.done_reason == "stop")
