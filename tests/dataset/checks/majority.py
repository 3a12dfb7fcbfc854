"""1 if there are more ones than zeros."""


def answers(words: list[str], task) -> dict[int, str]:
    if task.cumulative:
        return {at: _most(words[: at + 1]) for at in range(len(words))}
    *bits, end = words
    assert end == "="
    return {len(bits): _most(bits)}


def _most(bits: list[str]) -> str:
    return "1" if bits.count("1") > bits.count("0") else "0"
