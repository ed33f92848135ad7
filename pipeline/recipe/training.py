"""The recipe's `train` section: the method, the optimizer, and what is watched while it runs."""

from typing import Literal

from pydantic import Field, model_validator

from pipeline.recipe.section import Section

LLAMA_PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")

Tracker = Literal["tensorboard", "wandb", "trackio"]


class Lora(Section):
    r: int = Field(16, ge=1)
    """Rank: capacity against memory and overfitting."""
    alpha: int = Field(32, ge=1)
    """The adapter is scaled by alpha / r."""
    dropout: float = Field(0.0, ge=0.0, lt=1.0)
    """Against overfitting on few rows; 0 is fastest."""
    target_modules: tuple[str, ...] = LLAMA_PROJECTIONS
    rslora: bool = False
    """Scale by alpha / sqrt(r) instead: steadier at high ranks."""
    dora: bool = False
    """Learn each weight's magnitude apart from its direction: better at low ranks, slower, and
    without Unsloth's fused kernels."""


class Train(Section):
    method: Literal["qlora", "lora", "lora-8bit", "full"] = "qlora"
    """`qlora` holds the base in NF4, a quarter of the memory; `lora` in 16 bits, `lora-8bit` in 8;
    `full` trains every weight, for about six times the memory of `lora`."""
    device: Literal["cuda", "cpu"] = "cuda"
    precision: Literal["bf16", "fp16", "fp32"] = "bf16"
    """fp32 makes results alike across processors; bf16 needs an Ampere GPU or newer."""
    deterministic: bool = False
    """Same bytes again on the same GPU, for some speed; a CPU always gives them."""
    epochs: float = Field(1.0, gt=0)
    max_steps: int | None = Field(None, ge=1)
    """Stops there, whatever `epochs` says."""
    batch_size: int = Field(2, ge=1)
    gradient_accumulation: int = Field(8, ge=1)
    """batch_size x gradient_accumulation rows make one optimizer step, on each GPU."""
    batching: Literal["shuffled", "grouped", "packed"] = "shuffled"
    """`grouped` puts rows of like length together: less padding. `packed` fills each row of a batch
    up to max_seq_length with several, which do not see one another: none, and longer steps."""
    learning_rate: float = Field(2e-4, gt=0)
    warmup_steps: int = Field(10, ge=0)
    schedule: Literal["linear", "cosine", "constant_with_warmup"] = "cosine"
    weight_decay: float = Field(0.01, ge=0)
    max_grad_norm: float = Field(1.0, gt=0)
    optimizer: Literal[
        "adamw_torch", "adamw_8bit", "paged_adamw_8bit", "paged_adamw_32bit"
    ] = "adamw_8bit"  # fmt: skip
    """8-bit state saves 6 bytes a trainable parameter, paged state moves out of a full GPU; a CPU
    has adamw_torch only."""
    neftune_noise_alpha: float | None = Field(None, gt=0)
    """Noise on the embeddings while training, such as 5: less overfitting on few rows."""
    gradient_checkpointing: bool = True
    """Recomputes activations: less memory, about a third more time."""
    save_every: int = Field(50, ge=1)
    """Steps between checkpoints: what a power cut costs."""
    eval_every: int | None = Field(None, ge=1)
    """Steps between losses on the eval rows; None takes it at the end only."""
    early_stopping: int | None = Field(None, ge=1)
    """Stop after so many of those without a better one."""
    keep: Literal["last", "best"] = "last"
    """Which weights are kept: the last, or those of the lowest loss on the eval rows."""
    sample_every: int | None = Field(None, ge=1)
    """Steps between answers to a few held-out questions, written into the log."""
    sample_rows: int = Field(3, ge=1)
    trackers: tuple[Tracker, ...] = ()
    """Where figures go too while it trains: `tensorboard`, `wandb`, `trackio`."""
    lora: Lora = Lora()

    @model_validator(mode="after")
    def _cpu_can_do_it(self) -> "Train":
        if self.device == "cuda":
            return self
        if self.optimizer != "adamw_torch":
            raise ValueError(f"optimizer {self.optimizer} needs a GPU; a CPU has adamw_torch")
        if self.precision != "fp32":
            raise ValueError(f"precision {self.precision} needs a GPU; a CPU trains in fp32")
        if self.method == "lora-8bit":
            raise ValueError(
                "method lora-8bit needs a GPU; a CPU has qlora, lora and full: "
                "Unsloth opens no 8-bit base there"
            )
        return self

    @model_validator(mode="after")
    def _watched_where_it_steers(self) -> "Train":
        if self.eval_every is None and (self.early_stopping or self.keep == "best"):
            raise ValueError("early_stopping and keep: best need eval_every, such as 50")
        return self


UNSEEN = ("save_every", "sample_every", "sample_rows", "trackers")
"""Keys of Train that change nothing of what is learned."""
