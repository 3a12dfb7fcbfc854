"""Counts both kinds of pairs, overlapping ones too."""


def answers(words: list[str], task) -> dict[int, str]:
    text = "".join(words).removesuffix("=")
    pairs = [text[i : i + 2] for i in range(len(text))]
    number = pairs.count("ab") + pairs.count("ba")
    return {len(text): "odd" if number % 2 else "even"}
