"""The loss on rows that are not learned, the same however they are batched and shared out.

Imported in a training process only, after Unsloth, which patches what is imported here.
"""

from typing import Any

import torch

from pipeline.train.rows import IGNORE


def mean_loss(trainer: Any, rows: Any) -> float:
    """Cross-entropy in nats, the mean over all target tokens of `rows` (a datasets.Dataset).

    Trainer's own is a mean over batches: other batches, or processes, would give another number.
    Every process must call this, takes every so many-th batch, and gets the same mean.
    """
    sums = torch.zeros(2, dtype=torch.float64, device=trainer.args.device)
    size = trainer.args.per_device_eval_batch_size
    places = range(trainer.args.process_index * size, len(rows), trainer.args.world_size * size)
    trainer.model.eval()
    for place in places:
        taken = range(place, min(place + size, len(rows)))
        inputs = trainer._prepare_inputs(trainer.data_collator([rows[row] for row in taken]))
        with torch.no_grad(), trainer.compute_loss_context_manager():
            loss = trainer.model(**inputs).loss
        # the first token of a row has nothing before it to be told from
        targets = (inputs["labels"][:, 1:] != IGNORE).sum()
        sums += torch.stack([loss.double() * targets, targets.double()])
    trainer.model.train()
    if trainer.args.world_size > 1:
        torch.distributed.all_reduce(sums)
    return float(sums[0] / sums[1])
