"""What a training holds in memory, part by part, from the shape of the base alone.

On a GPU the memory is the card's, on a CPU the training process's RAM. benchmarks/plan.json and
benchmarks/gpu_train.json hold the peaks that these formulas were held against.
"""

from dataclasses import dataclass, replace
from typing import Literal

from pipeline.recipe import Recipe
from pipeline.recipe.training import Lora, Train
from pipeline.study.plan.shapes import Shape

Method = Literal["full", "lora", "lora-8bit", "qlora"]
METHODS: tuple[Method, ...] = ("full", "lora", "lora-8bit", "qlora")

NF4_BLOCK, NF4_GROUP = 64, 256
"""Weights that share a scale, and scales that share one of their own (bitsandbytes' defaults)."""
OPTIMIZER_BLOCK, OPTIMIZER_SMALL = 256, 4096
"""bitsandbytes' 8-bit AdamW: a scale for each block of a state; smaller tensors keep fp32 states
(bitsandbytes/optim/optimizer.py, Optimizer2State)."""

IMPORTED = 1_000_000_000
"""Bytes of the training process before it opens a base: Python, torch, Unsloth and what they
import; measured, benchmarks/plan.json."""
CUDA_CONTEXT = 600_000_000
"""Bytes of a card that the driver and the kernels take before a tensor is made: about 0.5 GB on
the cards that are sold now; assumed, not measured."""

_CPU_CHUNK, _CPU_CHUNK_ROWS = 16 * 1024 * 1024, 16
"""Logits that Unsloth computes at once on a CPU, and rows at least (unsloth_zoo/cpu/ops.py)."""
_GPU_WORKSPACE = 75_000_000
"""Bytes of a loss's chunk of logits and of kernels on a GPU; fitted, benchmarks/gpu_train.json."""
_FRAGMENTS = 0.10
"""Share of what comes and goes that torch's allocator on a GPU cannot use again."""
_HOLES = 0.85
"""Share of small activations that the heap holds once more, in vain; fitted,
benchmarks/plan.json."""
_MALLOC_MAPS = 32 * 1024 * 1024
"""Bytes from which on glibc gives back at once what is freed (DEFAULT_MMAP_THRESHOLD_MAX)."""
_QUANTIZED_REST = 380_000_000
"""Bytes of smaller fp32 matrices that stay in the heap after a 4-bit base was made of them on a
CPU; fitted, benchmarks/plan.json."""
_LOGIT_COPIES = 2
"""Whole fp32 logits at once where a loss is measured on a CPU: themselves and their softmax."""


@dataclass(frozen=True)
class Setting:
    """What of a recipe decides about memory."""

    method: Method
    device: Literal["cuda", "cpu"]
    precision: Literal["bf16", "fp16", "fp32"]
    batch_size: int
    max_seq_length: int
    """Tokens of a row: every row of a micro-batch is taken as long as the longest may be."""
    gradient_checkpointing: bool
    optimizer: str
    lora: Lora

    @classmethod
    def of(cls, recipe: Recipe) -> "Setting":
        train: Train = recipe.train
        return cls(
            method=train.method,
            device=train.device,
            precision=train.precision,
            batch_size=train.batch_size,
            max_seq_length=recipe.model.max_seq_length,
            gradient_checkpointing=train.gradient_checkpointing,
            optimizer=train.optimizer,
            lora=train.lora,
        )

    def by(self, method: Method) -> "Setting":
        """The same with another method."""
        return replace(self, method=method)

    @property
    def tokens(self) -> int:
        """Tokens of a micro-batch, padding counted."""
        return self.batch_size * self.max_seq_length

    @property
    def width(self) -> int:
        """Bytes of a value that is computed with."""
        return 4 if self.precision == "fp32" else 2


@dataclass(frozen=True)
class Memory:
    """Bytes of each part while a step runs, and what other moments take instead."""

    weights: int
    adapter: int
    gradients: int
    optimizer: int
    activations: int
    logits: int
    allocator: int
    """Freed, and not to be used again."""
    overhead: int
    """The driver's, or the imported libraries'."""
    loading: int
    """While the base is opened, on a CPU: its mapped file beside what is made of it; above
    `overhead`."""
    evaluating: int
    """While losses are measured on rows that are not learned, on a CPU: whole logits of as many
    rows, beside what the heap still holds of a step; above `overhead`."""

    @property
    def step(self) -> int:
        """All that a step needs at once."""
        return self._kept + self.activations + self.logits + self.allocator + self.overhead

    @property
    def total(self) -> int:
        """The most at any moment."""
        return max(self.step, self.overhead + max(self.loading, self.evaluating))

    @property
    def _kept(self) -> int:
        return self.weights + self.adapter + self.gradients + self.optimizer


def memory_of(shape: Shape, setting: Setting) -> Memory:
    """The memory of a training of `shape` with `setting`, in bytes."""
    trained, gpu = 4 * sum(_trained(shape, setting)), setting.device == "cuda"
    activations = activation_bytes(shape, setting)
    heap = round(_FRAGMENTS * activations) if gpu else heap_bytes(shape, setting)
    kept = {
        "weights": weight_bytes(shape, setting),
        "adapter": 0 if setting.method == "full" else trained,
        "gradients": trained,
        "optimizer": optimizer_bytes(shape, setting),
        "allocator": heap,
    }
    whole = _LOGIT_COPIES * 4 * setting.tokens * shape.architecture.vocab
    return Memory(
        **kept,
        activations=activations,
        logits=logit_bytes(shape, setting),
        overhead=CUDA_CONTEXT if gpu else IMPORTED,
        loading=0 if gpu else loading_bytes(shape, setting),
        evaluating=0 if gpu else sum(kept.values()) + activations + whole,
    )


def nominal_bytes(parameters: int, bits: int) -> int:
    """Every weight in so many bits: the table that people carry in their heads."""
    return parameters * bits // 8


def weight_bytes(shape: Shape, setting: Setting) -> int:
    """The base as training holds it; embeddings, head, norms and biases stay 16-bit.

    `full` holds fp32 weights, on a GPU beside the 16-bit copies that torch.autocast keeps during a
    step (pipeline/train/model.py: float32_mixed_precision). A CPU computes in fp32, and so are all
    weights but the 4-bit ones.
    """
    width = setting.width
    apart = (shape.parameters - shape.matrix_weights) * width
    if setting.method == "full":
        copies = 0 if width == 4 else width * shape.parameters
        return 4 * shape.parameters + copies
    if setting.method == "lora":
        return width * shape.parameters
    return apart + (nf4_bytes(shape) if setting.method == "qlora" else int8_bytes(shape))


def nf4_bytes(shape: Shape) -> int:
    """The projections in NF4 with double quantization: 4.127 bits a weight.

    Half a byte each; an 8-bit scale for 64 weights; an fp32 scale for 256 of those scales, and an
    fp32 offset a tensor: 0.127 bits a weight instead of 0.5 (Dettmers et al. 2023,
    arXiv 2305.14314, section 3, "Double Quantization").
    """
    total = 0
    for tensor in shape.matrices:
        blocks = -(-tensor.size // NF4_BLOCK)
        total += -(-tensor.size // 2) + blocks + 4 * -(-blocks // NF4_GROUP) + 4
    return total


def int8_bytes(shape: Shape) -> int:
    """The projections in LLM.int8: a byte each and an fp32 scale a row.

    Dettmers et al. 2022, arXiv 2208.07339, section 2; `CB` and `SCB` of bitsandbytes' Linear8bitLt.
    """
    return sum(tensor.size + 4 * tensor.shape[0] for tensor in shape.matrices)


def optimizer_bytes(shape: Shape, setting: Setting) -> int:
    """AdamW's two states of what is trained: fp32, or 8 bits with a scale for each block.

    bitsandbytes keeps fp32 states for small tensors, and Transformers asks it to for embeddings
    (Trainer.create_optimizer). Paged states count too, though they may move out of a full card.
    """
    if "8bit" not in setting.optimizer or setting.device == "cpu":
        return 8 * sum(_trained(shape, setting))
    embedding = shape.embedding if setting.method == "full" else 0
    total = 0
    for size in _trained(shape, setting):
        small = size < OPTIMIZER_SMALL or size == embedding
        total += 8 * size if small else 2 * size + 8 * -(-size // OPTIMIZER_BLOCK)
    return total


def kept_values(shape: Shape, setting: Setting) -> int:
    """Values of one token that one layer keeps for its backward pass.

    4 h of two residuals and their norms, 2 q and 2 k of the attention (queries, keys, values and
    the result: flash attention keeps no scores), 4 f of the gated MLP, r for each adapted
    projection; Qwen3's head norms keep q + k more, trained norms 2 h. Counted as Korthikanti et al.
    2022 do (arXiv 2205.05198, section 4.1), whose 34 bytes x h are those of a GPT with dropout and
    f = 4 h; torch's saved_tensors_hooks see the same here (tests/e2e/test_plan.py).
    """
    model = shape.architecture
    hidden, inner = model.hidden, model.intermediate
    values = 4 * hidden + 2 * shape.queries + 2 * shape.keys + 4 * inner + model.heads + 2
    if model.family.head_norms:
        values += shape.queries + shape.keys
    if setting.method == "full":
        return values + 2 * hidden
    modules = {tensor.module for tensor in shape.matrices}
    return values + setting.lora.r * len(modules & set(setting.lora.target_modules))


def activation_bytes(shape: Shape, setting: Setting) -> int:
    """What a micro-batch's backward pass needs of its forward pass.

    Without checkpointing: `kept_values` of every layer, and some on their way. With it each layer
    keeps its input alone, which Unsloth moves to RAM on a GPU, and one layer at a time is computed
    again: on a CPU its kept values and gradients; Unsloth's kernels on a GPU hold 8 h + 4 q + 6 f
    for it, fitted on 1B and 3B trainings (benchmarks/gpu_train.json).
    """
    model = shape.architecture
    hidden, inner = model.hidden, model.intermediate
    each = setting.tokens * setting.width
    passing = 3 * inner + 2 * hidden
    if not setting.gradient_checkpointing:
        return each * (model.layers * kept_values(shape, setting) + passing)
    if setting.device == "cuda":
        return each * (8 * hidden + 4 * shape.queries + 6 * inner)
    return each * (model.layers * hidden + kept_values(shape, setting) + passing)


def logit_bytes(shape: Shape, setting: Setting) -> int:
    """The chunk of fp32 logits that the loss takes at once; the whole is never made in a step.

    A tied or trained head's gradient is summed in fp32 apart from the others (`full` on a CPU:
    unsloth_zoo/cpu/ops.py, _ChunkedLinearCrossEntropy).
    """
    if setting.device == "cuda":
        return _GPU_WORKSPACE
    vocab = shape.architecture.vocab
    rows = min(setting.tokens, max(_CPU_CHUNK_ROWS, _CPU_CHUNK // vocab))
    head = 4 * shape.embedding if setting.method == "full" else 0
    return 4 * rows * vocab + head


def heap_bytes(shape: Shape, setting: Setting) -> int:
    """What the C library's heap holds in vain on a CPU.

    What comes and goes within a layer leaves holes between what stays, checkpointing or not, and
    glibc gives back only what lies at the heap's end, or is larger than its mapping threshold
    (mallopt(3), M_TRIM_THRESHOLD and M_MMAP_THRESHOLD). The same is left of the fp32 matrices that
    a 4-bit base is made of.
    """
    model, kept = shape.architecture, kept_values(shape, setting)
    widths = {
        model.intermediate: 4 * model.intermediate,
        model.hidden: kept - 4 * model.intermediate,
    }
    row = setting.width * setting.tokens
    small = sum(values for width, values in widths.items() if width * row < _MALLOC_MAPS)
    moved = activation_bytes(shape, replace(setting, gradient_checkpointing=False))
    return round(_HOLES * moved * small / kept) + _quantized_rest(shape, setting)


def loading_bytes(shape: Shape, setting: Setting) -> int:
    """The base's mapped 16-bit file, read to its end, beside the weights that are made of it."""
    rest = _quantized_rest(shape, setting)
    return 2 * shape.parameters + weight_bytes(shape, setting) + rest


def _quantized_rest(shape: Shape, setting: Setting) -> int:
    if setting.method != "qlora":
        return 0
    sizes = (4 * tensor.size for tensor in shape.matrices)
    return min(_QUANTIZED_REST, sum(size for size in sizes if size < _MALLOC_MAPS))


def _trained(shape: Shape, setting: Setting) -> list[int]:
    """The size of each tensor that learns."""
    if setting.method == "full":
        return [tensor.size for tensor in shape.tensors]
    return list(shape.adapter(setting.lora))
