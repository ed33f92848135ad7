"""The typed recipe. Unknown keys are errors; every key says what it trades."""

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from pipeline.recipe.section import FolderName, ModelName, Section, Url, VariableName
from pipeline.recipe.training import Train

QuantType = Literal[
    "Q2_K", "Q3_K_S", "Q3_K_M", "Q3_K_L", "Q4_K_S", "Q4_K_M", "Q5_K_S", "Q5_K_M", "Q6_K", "Q8_0",
    "F16", "BF16",
]  # fmt: skip
Share = Annotated[float, Field(ge=0.0, lt=1.0)]


class Model(Section):
    """The base model, always the 16-bit weights: train quantizes them, export merges into them."""

    base: str
    """A hub id, a folder, or `builtin:NAME`."""
    revision: str | None = None
    """A commit of the hub repository; None takes the newest once and records which it was."""
    max_seq_length: int = Field(2048, ge=32)
    """Longest training row in tokens: memory grows with it, longer rows are dropped."""


class Columns(Section):
    """Which column of a record holds what: a name, or a dotted path as `messages.0.info.source`.

    The question comes from `question` or `messages`; the reply from exactly one of `messages`
    (its last turn), `reply`, `candidates`, or `answer` with or without `reasoning`.
    """

    messages: str | None = None
    """A chat: a list of {role, content} or {from, value}; one exchange, a system turn or not."""
    question: str | None = None
    input: str | None = None
    """Alpaca's second part of the question; may be empty."""
    system: str | None = None
    prompt: str | None = None
    """Text around the question, which stands for `{question}` in it."""
    reply: str | None = None
    """A thinking block and the answer in one text, in any of the datasets' tags."""
    reasoning: str | None = None
    answer: str | None = None
    """The answer alone. Without `reasoning` the row trains a direct answer."""
    reply_start: str | None = Field(None, min_length=1)
    """Text that every answer begins with, such as `Price is $`: given, and not learned."""
    round_answer: bool = False
    """Round a number in `answer` to a whole one; a record without a number is a reject."""
    labels: tuple[str, ...] = ()
    """Names of a classification's numbers, from 0 on, where `answer` holds numbers."""
    candidates: str | None = None
    """A list of replies; the first that is complete and correct is taken."""
    correct: tuple[str, ...] = ()
    """Flags, the more trusted first; one a row, or one a candidate."""
    complete: str | None = None
    """A flag that the reply was not cut off; one a row, or one a candidate."""
    reference: str | None = None
    """The known final answer."""
    id: str | None = None
    source: str | None = None
    where: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Take only records whose column has one of these values."""

    @model_validator(mode="after")
    def _one_question_and_one_reply(self) -> "Columns":
        if (self.messages is None) == (self.question is None):
            raise ValueError("name the question's column: `question`, or a chat in `messages`")
        named = [key for key in ("reply", "candidates", "answer") if getattr(self, key)]
        if len(named) > 1:
            raise ValueError(f"{' and '.join(named)} each hold a reply: name one")
        if not named and self.messages is None:
            raise ValueError("name the reply's column: `reply`, `answer`, or `candidates`")
        if self.reasoning and not self.answer:
            raise ValueError("`reasoning` needs `answer`")
        if self.prompt is not None and self.prompt.count("{question}") != 1:
            raise ValueError("`prompt` must hold {question} once")
        if (self.reply_start or self.round_answer) and (self.reasoning or not self.answer):
            raise ValueError("reply_start and round_answer need `answer`, without `reasoning`")
        return self

    @field_validator("reply_start")
    @classmethod
    def _as_it_is_shown(cls, start: str | None) -> str | None:
        if start is not None and start != start.strip():
            raise ValueError("`reply_start` may not begin or end with a space: texts are stripped")
        return start


class Filters(Section):
    """Which rows are taken. Every row that is not is counted and kept, with its reason."""

    over_long: Literal["drop", "truncate"] = "drop"
    """A row beyond model.max_seq_length; `truncate` cuts the reasoning's end, never the answer."""
    question_tokens: int | None = Field(None, ge=8)
    """Cut the end of a longer question, but not what `columns.prompt` puts around it; counted."""
    min_reasoning_words: int = Field(0, ge=0)
    languages: tuple[str, ...] = ()
    """ISO 639-1 codes such as `en`; empty takes every language."""
    repetition: bool = True
    """Drop a reply that runs in a loop."""
    correct: bool = True
    """Drop a row whose dataset says that it is wrong or cut off."""
    verify: bool = True
    """Drop a row whose answer math-verify refutes by its reference: some milliseconds a row."""


class Source(Section):
    """Where rows come from: a hub dataset, or a jsonl or parquet file."""

    dataset: str
    """A hub id, a path, or `builtin:NAME`."""
    config: str | None = None
    split: str | None = None
    """None takes the registry's, or `train`."""
    revision: str | None = None
    limit: int | None = Field(None, ge=1)
    """At most so many source rows, from the first on."""
    columns: Columns | None = None
    """None takes the registry's; `pipe prepare --yes` takes what is found in the rows."""
    filters: Filters | None = None
    """None takes data.filters."""
    weight: float | None = Field(None, gt=0, allow_inf_nan=False)
    """Its share of the mixture against the other weights; rows beyond it are left out."""
    seed: int | None = Field(None, ge=0)
    """Draws the rows that a weight takes; None takes the recipe's."""
    max_loss: float = Field(0.5, ge=0, le=1)
    """The share of its rows that may be dropped; beyond it prepare stops and says why."""


class Dedupe(Section):
    questions: Literal["near", "exact", "keep"] = "near"
    """`keep` allows one question several replies; equal rows are always dropped."""
    similarity: float = Field(0.85, gt=0.5, le=1.0)
    """Jaccard similarity of word 5-grams from which on two questions are near-duplicates."""


class Benchmark(Section):
    """Questions that must not be in the training rows."""

    dataset: str
    config: str | None = None
    split: str = "test"
    revision: str | None = None
    question: str | None = None
    """The column; None takes question, problem or prompt, whichever is there."""


class Data(Section):
    sources: tuple[Source, ...] = Field(min_length=1)
    test: Source | None = None
    """Rows that only `pipe eval` sees; without it they are split off by `test_share`."""
    filters: Filters = Filters()
    dedupe: Dedupe = Dedupe()
    decontaminate: tuple[Benchmark, ...] = ()
    """Held against training rows beside the run's own test rows, which always are."""
    eval_share: Share = 0.02
    """Steers training (validation loss); more costs training rows and time."""
    test_share: Share = 0.02
    no_thinking_share: Share = 0.10
    """Rows trained to answer directly after an empty thinking block, so `think=false` works."""
    general: Source | None = None
    """Rows of what the base can do already, to see what it forgets: 64 are held apart, and training
    measures their loss as the base answers them, without a thinking block; the reply's first token,
    where a tuned model turns to thinking, does not count. None takes a shipped few."""
    general_share: Share = 0.0
    """Share of the training rows taken from the rest of `general`, against forgetting. Trained as
    those of `no_thinking_share`: without the empty block they would teach to skip thinking."""

    @model_validator(mode="after")
    def _weights_for_all_or_none(self) -> "Data":
        weighted = [source.weight is not None for source in self.sources]
        if any(weighted) and not all(weighted):
            raise ValueError("give every source a weight, or none")
        return self

    @model_validator(mode="after")
    def _general_by_share(self) -> "Data":
        if self.general and self.general.weight is not None:
            raise ValueError("data.general takes no weight: general_share says how much of it")
        if self.general and self.general.columns and self.general.columns.reply_start:
            raise ValueError("data.general takes no reply_start: its answers are whole")
        return self


class Chat(Section):
    format: str = "llama3.2-reasoning"
    thinking: bool = True
    """False for rows without reasoning: replies are learned and asked for without a thinking block,
    not even an empty one. Reasoning that a row has is then left out."""


class Importance(Section):
    """An importance matrix: which columns of each weight matter, so that others take the error."""

    file: str | None = None
    """One made by llama-imatrix; None collects it on the run's own training rows."""
    tokens: int = Field(50_000, ge=512)
    """Training tokens to collect it on: more costs time, about that of reading them as a prompt."""
    context: int = Field(512, ge=32, le=4096)
    """Tokens at a time: memory grows with it, times the vocabulary."""


class Export(Section):
    quantize: tuple[QuantType, ...] = ("Q4_K_M", "Q8_0")
    """GGUF types; the first gets the plain name in Ollama, the others a tag."""
    importance: Importance | None = None
    """Better files below 6 bits, for a pass over training rows; None does without."""
    tensor_types: tuple[str, ...] = ()
    """`REGEX=TYPE`: other types for the tensors whose GGUF name the pattern is found in."""
    adapter_gguf: bool = False
    """Also write the adapter alone, for llama.cpp's --lora."""

    @field_validator("quantize")
    @classmethod
    def _some_and_distinct(cls, types: tuple[QuantType, ...]) -> tuple[QuantType, ...]:
        if not types or len(set(types)) < len(types):
            raise ValueError("name at least one type, each once")
        return types


class Serve(Section):
    """What goes into the Modelfile. R1's own sampling: temperature 0.6, top_p 0.95."""

    name: ModelName = "my-model"
    temperature: float = Field(0.6, ge=0)
    top_p: float = Field(0.95, gt=0, le=1)
    repeat_penalty: float = Field(1.0, gt=0)
    num_ctx: int | None = Field(None, ge=32)
    """Context in Ollama; None takes model.max_seq_length. Ollama's own default may cut a trace."""
    license: str | None = None
    """Text or SPDX id shown by `ollama show`; None takes the base's."""


class Endpoint(Section):
    """A server that speaks OpenAI's chat completions."""

    url: Url
    """Up to and without `/chat/completions`, as http://127.0.0.1:8000/v1."""
    model: str
    key_env: VariableName | None = None
    """The environment variable that holds the key; the key itself stands in no file."""


class Evaluate(Section):
    tasks: tuple[str, ...] = ("test",)
    """`test` (the run's held-out rows), `gsm8k`, `math-500`, a jsonl or a task's YAML file, or a
    task of an installed package. The first leads the report."""
    limit: int | None = Field(None, ge=1)
    """At most so many questions per task and engine."""
    engines: tuple[str, ...] = ()
    """Of base, adapter, merged, each GGUF type, ollama, endpoint; empty takes all there are."""
    batch_size: int = Field(16, ge=1)
    """Questions at a time: faster, for more memory. llama.cpp and servers take 16 at most."""
    max_new_tokens: int = Field(1024, ge=1)
    temperature: float = Field(0.0, ge=0)
    """0 is greedy, one answer a question. open-r1 measures at 0.6."""
    top_p: float = Field(0.95, gt=0, le=1)
    samples: int = Field(1, ge=1)
    """Replies a question; pass@1 is their mean. open-r1 takes 4 on MATH-500, 64 on AIME."""
    endpoint: Endpoint | None = None
    metrics: tuple[str, ...] = ()
    """`mae`, `rmsle`, `hit_rate`, `within_20_percent` and `r2`, of answers that are a number; or
    those of installed packages."""

    @model_validator(mode="after")
    def _samples_differ(self) -> "Evaluate":
        if self.samples > 1 and self.temperature == 0:
            raise ValueError("greedy samples are all the same: set eval.temperature, such as 0.6")
        if not self.tasks or len(set(self.tasks)) < len(self.tasks):
            raise ValueError("name at least one task, each once")
        return self


class Recipe(Section):
    name: FolderName
    description: str = ""
    seed: int = Field(3407, ge=0)
    model: Model
    data: Data
    chat: Chat = Chat()
    train: Train = Train()
    export: Export = Export()
    serve: Serve = Serve()
    eval: Evaluate = Evaluate()

    @property
    def num_ctx(self) -> int:
        """Context length that Ollama gets, in tokens: at least the training length."""
        return max(self.serve.num_ctx or 0, self.model.max_seq_length)
