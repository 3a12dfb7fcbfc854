"""Different mixers in different layers."""

from collections.abc import Callable

from jaxtyping import Bool, Float, Int
from torch import Tensor

from attnlab.mixer.base import Mixer, State, build_mixer
from attnlab.position.base import Position


class Hybrid(Mixer):
    """Gives each layer one of two or three mixers, as in Jamba (Lieber et al. 2024, sec. 2).

        y = mixer(x), of layer i the one that letter i of `pattern` names

    The pattern repeats: "aaab" sets one layer of b on every three of a. A unidirectional one is
    built twice where all may be seen, so that an LSTM becomes a bidirectional one below attention
    that sees all.
    """

    def __init__(
        self,
        d_model: int,
        position: Position | None = None,
        causal: bool = True,
        layer: int = 0,
        *,
        a: Callable[..., Mixer],
        b: Callable[..., Mixer],
        c: Callable[..., Mixer] | None = None,
        pattern: str = "ab",
    ) -> None:
        super().__init__(d_model, position, causal)
        mixers = {"a": a, "b": b} if c is None else {"a": a, "b": b, "c": c}
        if set(pattern) != set(mixers):
            raise ValueError(
                f"pattern={pattern!r} must be made of the letters {', '.join(mixers)}, and use "
                "each of them"
            )
        self.min_layers = 1 + max(pattern.index(letter) for letter in mixers)
        self.mixer = build_mixer(
            mixers[pattern[layer % len(pattern)]], d_model, self.position, causal, layer
        )

    def forward(
        self,
        x: Float[Tensor, "batch seq d_model"],
        valid: Bool[Tensor, "batch seq"] | None = None,
        documents: Int[Tensor, "batch seq"] | None = None,
    ) -> Float[Tensor, "batch seq d_model"]:
        # A mixer that cannot keep documents apart has no parameter for them.
        return self.mixer(x, valid, *(() if documents is None else (documents,)))

    def step(
        self,
        x: Float[Tensor, "batch 1 d_model"],
        at: int,
        state: State = None,
        documents: Int[Tensor, "batch seq"] | None = None,
    ) -> tuple[Float[Tensor, "batch 1 d_model"], State]:
        return self.mixer.step(x, at, state, *(() if documents is None else (documents,)))

    def require_document_mask(self) -> None:
        self.mixer.require_document_mask()

    def state_size(self, length: int) -> int | None:
        return self.mixer.state_size(length)
