"""The chat format: conversation -> text -> token ids, and back from a reply."""

from pipeline.chat.encode import Encoded, Encoder, Exchange
from pipeline.chat.fast import Backend
from pipeline.chat.format import ChatFormat, neutral_conversation, render_jinja
from pipeline.chat.formats import ASSUMED, FORMATS, chat_format, check_fit, format_for
from pipeline.chat.pieces import Control, Conversation, Message, Tag, Text
from pipeline.chat.proof import Proof, fastest, unproven
from pipeline.chat.reply import Part, Reply, ReplySplitter, parse_reply
from pipeline.chat.rows import conversation_of, exchange_of

__all__ = [
    "ASSUMED",
    "FORMATS",
    "Backend",
    "ChatFormat",
    "Control",
    "Conversation",
    "Encoded",
    "Encoder",
    "Exchange",
    "Message",
    "Part",
    "Proof",
    "Reply",
    "ReplySplitter",
    "Tag",
    "Text",
    "chat_format",
    "check_fit",
    "conversation_of",
    "exchange_of",
    "fastest",
    "format_for",
    "neutral_conversation",
    "parse_reply",
    "render_jinja",
    "unproven",
]
