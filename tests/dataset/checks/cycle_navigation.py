"""Walks one step at a time."""


def answers(words: list[str], task) -> dict[int, str]:
    *moves, end = words
    assert end == "="
    place, last = 0, task.num_places - 1
    for move in moves:
        if move == "+":
            place = 0 if place == last else place + 1
        elif move == "-":
            place = last if place == 0 else place - 1
        else:
            assert move == "0"
    return {len(moves): str(place)}
