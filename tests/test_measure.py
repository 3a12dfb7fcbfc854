"""What is measured is what the arms do: their turns, their bytes, and how both grow."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from attnlab.measure import (
    NUM_TOKENS,
    MeasuredArm,
    measure,
    measure_peak_bytes,
    take_turns,
)
from attnlab.model.base import DECODER, Model
from attnlab.model.cost import flops
from attnlab.precision import TYPES
from tests.model.law import law


class Clock:
    """Stands still unless work is done, and notes when it was read."""

    def __init__(self) -> None:
        self.now, self.read = 0.0, []

    def __call__(self) -> float:
        self.read.append(self.now)
        return self.now


class Slow(Model):
    """Takes `takes(batch, length)` seconds of a clock to read, and notes what it was given."""

    def __init__(self, clock: Clock, takes: Callable[[int, int], float]) -> None:
        super().__init__()
        self.arrangement, self.clock, self.takes = DECODER, clock, takes
        self.embedding, self.head = nn.Embedding(NUM_TOKENS, 4), nn.Linear(4, NUM_TOKENS)
        self.read: list[tuple[int, int]] = []
        self.stepped: list[int] = []
        self.seen: list[tuple[bool, bool, torch.dtype]] = []

    def encode(
        self, inputs: Any, valid: Any = None, prefix: Any = None, prefix_valid: Any = None
    ) -> Any:
        self.read.append((len(inputs), inputs.shape[1]))
        self.clock.now += self.takes(len(inputs), inputs.shape[1])
        made = self.head(self.embedding(inputs))
        self.seen.append((self.training, made.requires_grad, made.dtype))
        return self.embedding(inputs), {}

    def step(self, inputs: Any, at: int, state: Any = None) -> Any:
        assert len(inputs) == 1
        assert (state or 0) == at, "a step that does not follow the one before"
        self.stepped.append(at)
        self.clock.now += self.takes(1, at + 1)
        made = self.head(self.embedding(inputs))
        self.seen.append((self.training, made.requires_grad, made.dtype))
        return made, at + 1

    def state_size(self, length: int) -> int | None:
        return 1


def slow(clock: Clock, name: str, power: int, precision: str = "32-true") -> MeasuredArm:
    return MeasuredArm(
        name, Slow(clock, lambda batch, length: 1e-4 * batch * length**power), precision
    )


def test_a_batch_has_the_same_tokens_at_every_length_and_one_sequence_at_least():
    clock = Clock()
    arm = slow(clock, "linear", 1)
    cells = list(measure([arm], [8, 4, 64, 4], ["forward"], tokens=32, rounds=2, clock=clock))
    assert [(cell.length, cell.batch) for cell in cells] == [(4, 8), (8, 4), (64, 1)]
    assert isinstance(arm.model, Slow)
    # Beside the batches, one sequence to count its FLOPs.
    assert {*arm.model.read} == {(8, 4), (4, 8), (1, 64), (1, 4), (1, 8)}


def test_arms_take_turns_and_each_round_begins_with_the_next():
    clock, order = Clock(), []

    def work(name: str, seconds: float) -> Callable[[], None]:
        def run() -> None:
            order.append(name)
            clock.now += seconds * (1 if order.count(name) > 1 else 100)

        return run

    takes = {"a": 1.0, "b": 0.3, "c": 0.1}
    works = {name: work(name, seconds) for name, seconds in takes.items()}
    times = take_turns(works, 3, clock, least_seconds=0.05)
    # One call warms up and one is long enough; then come the rounds.
    assert "".join(order) == "aabbcc" + "abc" + "bca" + "cab"
    for name, seconds in takes.items():
        assert times[name] == pytest.approx([seconds] * 3)


@law((1e-5, 0.012, 0.03))
def test_a_timing_takes_at_least_as_long_as_was_asked(seconds):
    clock = Clock()

    def work() -> None:
        clock.now += seconds

    (times,) = take_turns({"quick": work}, 3, clock, least_seconds=0.02).values()
    for began, ended in zip(clock.read[-6::2], clock.read[-5::2], strict=True):
        assert 0.02 <= ended - began < 0.05
    assert times == pytest.approx([seconds] * 3)


@law((64, 300))
def test_peak_memory_of_a_product_and_a_softmax_is_that_of_their_results(n):
    query, key = torch.randn(n, 16), torch.randn(16, n)
    assert measure_peak_bytes(lambda: query @ key) == 4 * n * n
    assert measure_peak_bytes(lambda: (query @ key).softmax(dim=-1)) == 2 * 4 * n * n
    # The second result is dropped before the third is there.
    assert measure_peak_bytes(lambda: (query @ key).exp().exp()) == 2 * 4 * n * n


def test_peak_memory_of_a_backward_pass_holds_what_was_saved():
    x, upstream = torch.randn(100, 100, requires_grad=True), torch.ones(100, 100)

    def work() -> None:
        # Three results are saved for the way back; there a gradient is made of another one.
        x.exp().exp().exp().backward(upstream)
        x.grad = None

    assert measure_peak_bytes(work) == 5 * 4 * 100 * 100
    assert measure_peak_bytes(work) == measure_peak_bytes(work)


def test_peak_memory_leaves_out_what_is_made_once():
    kept: dict[str, torch.Tensor] = {}

    def work() -> torch.Tensor:
        kept.setdefault("mask", torch.ones(1000))
        return kept["mask"].exp()

    assert measure_peak_bytes(work) == 4 * 1000


def test_decoding_reads_the_earlier_tokens_once_and_times_the_last_one():
    clock = Clock()
    arm = slow(clock, "linear", 1)
    cells = list(measure([arm], [4, 8], ["decode"], tokens=99, rounds=2, clock=clock))
    assert isinstance(arm.model, Slow)
    assert list(dict.fromkeys(arm.model.stepped)) == list(range(8))
    assert all(arm.model.stepped.count(at) == 1 for at in range(8) if at not in (3, 7))
    assert [cell.batch for cell in cells] == [1, 1]
    assert cells[1].seconds == pytest.approx([8e-4] * 2)
    assert cells[1].tokens_per_second == pytest.approx(1 / 8e-4)


def test_only_backward_trains():
    clock = Clock()
    arm = slow(clock, "linear", 1)
    for mode, training in (("backward", True), ("forward", False), ("decode", False)):
        list(measure([arm], [4], [mode], tokens=4, rounds=1, clock=clock))
        assert isinstance(arm.model, Slow)
        # The first pass of each measurement is a call; the last ones are timed.
        assert arm.model.seen[0][:2] == arm.model.seen[-1][:2] == (training, training)
        assert all(weights.grad is None for weights in arm.model.parameters())
        arm.model.seen.clear()


@law(TYPES)
def test_an_arm_computes_in_its_precision(precision):
    clock = Clock()
    arm = slow(clock, "linear", 1, precision)
    list(measure([arm], [4], ["backward"], tokens=4, rounds=1, clock=clock))
    assert isinstance(arm.model, Slow)
    kept, low = TYPES[precision]
    # As training does on a CPU.
    low = low and torch.bfloat16
    assert {weights.dtype for weights in arm.model.parameters()} == {kept or torch.float32}
    assert {dtype for _, _, dtype in arm.model.seen} == {low or kept or torch.float32}


def test_flops_are_those_of_the_whole_call_and_a_step_pays_for_what_it_looks_at(composed):
    words = ("model/mixer=multihead", "model.d_model=16", "model.num_layers=1")
    model = composed(*words).build("model", NUM_TOKENS, NUM_TOKENS, 16, DECODER)
    modes = ["forward", "decode"]
    cells = {
        (c.mode, c.length): c for c in measure([MeasuredArm("", model)], [8, 16], modes, 32, 1)
    }
    tokens = torch.zeros(1, 8, dtype=torch.long)
    assert cells["forward", 8].flops == 4 * flops(model, tokens)
    # Each of 8 more keys is a product of d_model with the query, and its value as many numbers.
    more, less = cells["decode", 16].flops, cells["decode", 8].flops
    assert more is not None
    assert less is not None
    assert more - less == 2 * 2 * 16 * 8
    assert cells["decode", 16].state_size == model.state_size(16)


class Greedy(Slow):
    """Asks for more memory than there is, from a length on."""

    def encode(
        self, inputs: Any, valid: Any = None, prefix: Any = None, prefix_valid: Any = None
    ) -> Any:
        if inputs.shape[1] >= 8:
            raise torch.OutOfMemoryError("too much")
        return super().encode(inputs, valid, prefix)


def test_an_arm_without_enough_memory_has_no_times_and_the_others_go_on():
    clock = Clock()
    greedy = MeasuredArm("greedy", Greedy(clock, lambda batch, length: batch * length))
    arms = [greedy, slow(clock, "linear", 1)]
    cells = {(c.arm, c.length): c for c in measure(arms, [4, 8], ["forward"], 8, 1, clock=clock)}
    assert cells["greedy", 4].seconds
    lost = cells["greedy", 8]
    assert (lost.seconds, lost.peak_bytes, lost.flops, lost.tokens_per_second) == (
        (),
        None,
        None,
        None,
    )
    assert cells["linear", 8].seconds


def test_any_other_error_is_not_taken_for_a_lack_of_memory():
    class Broken(Slow):
        def encode(
            self, inputs: Any, valid: Any = None, prefix: Any = None, prefix_valid: Any = None
        ) -> Any:
            raise RuntimeError("broken")

    with pytest.raises(RuntimeError) as raised:
        list(measure([MeasuredArm("", Broken(Clock(), lambda *_: 1.0))], [4], ["forward"]))
    assert str(raised.value) == "broken"
