"""Muon in fp32, for CPUs without bf16 arithmetic.

`torch.optim.Muon` orthogonalizes in bf16, which such a CPU emulates: a step of the tiny base then
spends far more time there than in the model. This one also handles equal shapes in one batch.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch

# The quintic iteration of Jordan et al., https://kellerjordan.github.io/posts/muon/
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
NEWTON_SCHULZ_STEPS = 3


def orthogonalize(matrices: torch.Tensor) -> torch.Tensor:
    """Bring the singular values of each matrix near 1; (count, rows, columns), rows <= columns."""
    a, b, c = NEWTON_SCHULZ
    x: torch.Tensor = matrices / (matrices.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, orthogonalized, with steps scaled to the size of AdamW's.

    Args:
        matrices: parameters of two dimensions.
        lr: learning rate, comparable to AdamW's: a step's root mean square is 0.2 of it.
        momentum: decay of the momentum buffer.
    """

    def __init__(
        self, matrices: Iterable[torch.nn.Parameter], lr: float, momentum: float = 0.95
    ) -> None:
        """Hold the matrices as one parameter group."""
        super().__init__(matrices, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update every matrix that has a gradient."""
        for group in self.param_groups:
            alike: dict[torch.Size, list[tuple[torch.Tensor, torch.Tensor]]] = {}
            for matrix in group["params"]:
                buffer = self.state[matrix].setdefault("momentum", torch.zeros_like(matrix))
                buffer.lerp_(matrix.grad, 1 - group["momentum"])
                wanted = matrix.grad.lerp(buffer, group["momentum"])
                tall = matrix.shape[0] > matrix.shape[1]
                # A transposed view: adding to it changes the matrix.
                pair = (matrix.mT, wanted.mT) if tall else (matrix, wanted)
                alike.setdefault(pair[0].shape, []).append(pair)
            for shape, pairs in alike.items():
                scale = -0.2 * max(shape) ** 0.5 * group["lr"]
                updates = orthogonalize(torch.stack([wanted for _, wanted in pairs]))
                for (target, _), update in zip(pairs, updates, strict=True):
                    target.add_(update, alpha=scale)
