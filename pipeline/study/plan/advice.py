"""When not to fine-tune: what to try first, and why."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Advice:
    when: str
    instead: str
    why: str


ADVICE = (
    Advice(
        "Ten examples in the prompt already give the right answers.",
        "prompting",
        "It costs nothing to change, and the next base model takes it over as it is.",
    ),
    Advice(
        "The answers hang on facts that change, or that must be quoted.",
        "retrieval",
        "Weights learn manner better than facts: facts learned late make a model invent others "
        "(Gekhman et al. 2024, arXiv 2405.05904), and a document can be replaced.",
    ),
    Advice(
        "There are fewer than some hundred good rows, and no way to score an answer.",
        "more rows and a test first",
        "Without held-out questions nobody can tell whether it helped: see pipe eval.",
    ),
    Advice(
        "A form, a tone or a way of thinking must always be kept; no prompt holds it.",
        "fine-tuning",
        "This is what a small adapter learns well, and what a shorter prompt then saves on every "
        "call.",
    ),
    Advice(
        "A large model does it well and is too slow, too dear or must not see the data.",
        "fine-tuning a small one on the large one's answers",
        "R1's distilled models are made so (DeepSeek-AI 2025, arXiv 2501.12948, section 2.4).",
    ),
)
"""In the order of asking: the first that is true decides."""
