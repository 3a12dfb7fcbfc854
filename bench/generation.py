"""MQAR generation against a loop over examples."""

import statistics
import time

from attnlab.dataset.base import BLOCK, stream
from attnlab.dataset.mqar import MQAR
from bench.loop_mqar import loop_mqar

ROUNDS = 7


def ratios() -> dict[str, float]:
    """Time a block of each in turn, and give the median ratio of the loop's time to ours."""
    return {
        f"loop / attnlab, V=8192 L={length} {pairs} pairs": _ratio(length, pairs)
        for length, pairs in ((64, 4), (512, 64))
    }


def _ratio(length: int, pairs: int) -> float:
    task = MQAR(vocab_size=8192, length=length, num_pairs=pairs)
    found = []
    for number in range(ROUNDS + 1):
        began = time.perf_counter()
        loop_mqar(8192, length, pairs, BLOCK, number)
        between = time.perf_counter()
        for block in range(10):
            task.rows(stream(0, "train", 10 * number + block), BLOCK)
        found.append((between - began) / ((time.perf_counter() - between) / 10))
    return statistics.median(found[1:])


if __name__ == "__main__":
    for name, value in ratios().items():
        print(f"{name:<56} {value:8.1f}")
