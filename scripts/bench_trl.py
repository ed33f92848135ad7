"""Contender of scripts/bench_prepare.py: TRL's own preparation, as SFTTrainer's users run it.

What SFTTrainer's `_prepare_dataset` does with prompt-completion messages: `datasets.map` five
times over (to ChatML, tokenize with the chat template, labels from the completion mask, truncate,
drop what is wholly masked). Only that is timed; imports, model and reading the rows are apart.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from time import monotonic
from typing import Any

STARTED = monotonic()

from bench_measure import Seen, fingerprint, keep  # noqa: E402
from datasets import Dataset, load_dataset  # noqa: E402
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast  # noqa: E402
from trl import SFTConfig, SFTTrainer  # noqa: E402

IMPORTED = monotonic()

TEMPLATE = (
    "{{- bos_token }}{%- for message in messages %}"
    "{{- '<|start_header_id|>' + message.role + '<|end_header_id|>\n\n' }}"
    "{{- message.content + '<|eot_id|>' }}{%- endfor %}"
    "{%- if add_generation_prompt %}"
    "{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{%- endif %}"
)


class Timed(SFTTrainer):
    """SFTTrainer that notes when its preparation begins and ends."""

    begin = end = 0.0

    def _prepare_dataset(self, *arguments: Any, **named: Any) -> Any:
        Timed.begin = monotonic()
        prepared = super()._prepare_dataset(*arguments, **named)
        Timed.end = monotonic()
        return prepared


def tokenizer_of(path: Path) -> PreTrainedTokenizerFast:
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(path),
        bos_token="<|begin_of_text|>",
        eos_token="<|eot_id|>",
        pad_token="<|finetune_right_pad_id|>",
    )
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def tiny_model(vocabulary: int) -> LlamaForCausalLM:
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=2,
        )
    )


def prompt_completion(record: dict[str, str]) -> dict[str, Any]:
    reply = f"<think>\n{record['reasoning']}\n</think>\n\n{record['answer']}"
    return {
        "prompt": [{"role": "user", "content": record["question"]}],
        "completion": [{"role": "assistant", "content": reply}],
    }


def rows_of(path: Path, folder: Path) -> Dataset:
    rows = load_dataset("parquet", data_files=str(path), split="train", cache_dir=str(folder))
    return rows.map(prompt_completion, remove_columns=["question", "reasoning", "answer"])


def seen_in(prepared: Dataset) -> Seen:
    seen = Seen({})
    for row, ids, labels in _examples(prepared):
        seen.add(row, fingerprint(ids, labels), len(ids))
    return seen


def _examples(prepared: Dataset) -> Iterator[tuple[str, Any, Any]]:
    columns = prepared.select_columns(["id", "input_ids", "labels"]).with_format("numpy")
    for row in columns:
        yield str(row["id"]), row["input_ids"], row["labels"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--max-length", type=int, required=True)
    parser.add_argument("--processes", type=int, help="default: TRL's own")
    parser.add_argument("--out", type=Path, required=True, help="a folder, not used before")
    options = parser.parse_args()
    tokenizer = tokenizer_of(options.tokenizer)
    model = tiny_model(len(tokenizer))
    loaded = monotonic()
    rows = rows_of(options.rows, options.out / "cache")
    read = monotonic()
    settings = {} if options.processes is None else {"dataset_num_proc": options.processes}
    config = SFTConfig(
        output_dir=str(options.out / "trainer"),
        max_length=options.max_length,
        completion_only_loss=True,
        bf16=False,
        use_cpu=True,
        report_to="none",
        **settings,
    )
    trainer = Timed(model=model, args=config, train_dataset=rows, processing_class=tokenizer)
    keep(
        options.out / "result.json",
        seen_in(trainer.train_dataset),
        Timed.begin,
        Timed.end,
        imports=IMPORTED - STARTED,
        model=loaded - IMPORTED,
        reading=read - loaded,
    )


if __name__ == "__main__":
    main()
