"""A model behind an endpoint, and one question to it."""

from pipeline.engines.completion import Decoding
from tests.engines.talks import chats

KEY = "sk-planted-key"
GREEDY = Decoding(9)


def one(engine, decoding=GREEDY, question="2 + 3?", **settings):
    (done,) = engine.answers(chats(question), decoding, **settings)
    return done
