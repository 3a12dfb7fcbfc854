"""MQAR drawn one example at a time, straight from the paper: an independent reference."""

import numpy as np


def loop_mqar(
    vocab_size: int, length: int, num_pairs: int, n: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Draw n examples: inputs, and labels at every position (-100 where nothing is asked)."""
    draw = np.random.RandomState(seed)
    inputs = np.zeros((n, length), dtype=np.int64)
    labels = np.full((n, length), -100, dtype=np.int64)
    space = (length - 2 * num_pairs) // 2
    weights = 0.01 * np.arange(1, space + 1) ** (0.01 - 1)
    weights /= weights.sum()
    for row in range(n):
        keys = draw.choice(np.arange(1, vocab_size // 2), size=num_pairs, replace=False)
        values = draw.choice(np.arange(vocab_size // 2, vocab_size), size=num_pairs, replace=False)
        gaps = draw.choice(space, size=num_pairs, replace=False, p=weights)
        for pair in range(num_pairs):
            inputs[row, 2 * pair], inputs[row, 2 * pair + 1] = keys[pair], values[pair]
            at = 2 * num_pairs + 2 * gaps[pair]
            inputs[row, at], labels[row, at] = keys[pair], values[pair]
    return inputs, labels
