"""Odd if the ones cannot be paired."""


def answers(words: list[str], task) -> dict[int, str]:
    if task.cumulative:
        return {at: str(words[: at + 1].count("1") % 2) for at in range(len(words))}
    *bits, end = words
    assert end == "="
    assert set(bits) <= {"0", "1"}
    return {len(bits): "odd" if bits.count("1") % 2 else "even"}
