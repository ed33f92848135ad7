"""The one pass: each slab is read, merged, quantized to every type asked for, and written."""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from pipeline.cores import cores
from pipeline.errors import PipeError
from pipeline.gguf.kernels import quantize
from pipeline.gguf.merged import Merged, Slab, Values
from pipeline.gguf.output import Output

F32 = npt.NDArray[np.float32]
U8 = npt.NDArray[np.uint8]

_AHEAD = 4
"""Slabs for each thread that are asked of the disk before their turn."""
_LARGEST_HALF = 65504.0


def stream(
    merged: Merged,
    outputs: Sequence[Output],
    importance: Mapping[str, F32],
    progress: Callable[[int, int], None],
) -> None:
    """Fill `outputs`; their bytes do not depend on the number of threads, one a core.

    `importance`, by tensor name, weighs columns; `progress` gets (weights done, weights in all).
    Raises PipeError for NaN or infinity in an exported tensor, OSError where the disk is full.
    """
    total, done = sum(weight.size for weight in merged.weights), 0
    threads = cores()
    waiting: deque[tuple[Slab, Future[None]]] = deque()
    with ThreadPoolExecutor(threads) as workers, _Disk(outputs) as disk:
        try:
            for slab in merged.slabs():
                merged.will_need(slab)
                waiting.append((slab, workers.submit(_handle, merged, slab, outputs, importance)))
                if len(waiting) > threads * _AHEAD:
                    done += _finished(*waiting.popleft())
                    disk.settle()
                    progress(done, total)
            for each in waiting:
                done += _finished(*each)
            progress(done, total)
        except BaseException:
            workers.shutdown(cancel_futures=True)
            raise


class _Disk:
    """Waits for the disk in a thread of its own, while the others go on."""

    def __init__(self, outputs: Sequence[Output]) -> None:
        self._outputs = outputs
        self._worker = ThreadPoolExecutor(1)
        self._settling: Future[None] | None = None

    def __enter__(self) -> "_Disk":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._worker.shutdown()
        if kind is None and self._settling:
            self._settling.result()

    def settle(self) -> None:
        """Begin with a file that has much to settle, unless one is being settled.

        Raises what the last settling raised.
        """
        if self._settling and not self._settling.done():
            return
        if self._settling:
            self._settling.result()
        full = next((output for output in self._outputs if output.wants_settling), None)
        self._settling = self._worker.submit(full.settle) if full else None


def _finished(slab: Slab, future: Future[None]) -> int:
    """Wait for a slab; its number of weights."""
    future.result()
    return slab.size


def _handle(
    merged: Merged, slab: Slab, outputs: Sequence[Output], importance: Mapping[str, F32]
) -> None:
    values = merged.read(slab)
    made: dict[str, U8] = {}
    for output in outputs:
        type = output.types[slab.weight.name]
        if type not in made:  # files that agree on a tensor's type share the work
            made[type] = _quantized(slab, values, type, importance.get(slab.weight.name))
        output.write(slab, made[type])
    merged.done_with(slab)


def _quantized(slab: Slab, values: Values, type: str, importance: F32 | None) -> U8:
    if type == values.dtype:
        return values.bits.view(np.uint8)
    if type == "F32":
        return values.float32.view(np.uint8)
    if type == "F16" and np.abs(values.float32).max() > _LARGEST_HALF:
        raise PipeError(
            f"{slab.weight.name} has values beyond 65504, the largest of F16.",
            "Export BF16 instead: --quantize BF16",
        )
    return quantize(type, values.float32, importance)
