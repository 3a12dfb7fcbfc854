"""The minimal LSTM."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from attnlab.mixer.base import Mixer, State
from attnlab.position.base import Position
from attnlab.ranges import Expansion, ranged
from attnlab.recurrence.elementwise import scan


@ranged
class MinLSTM(Mixer):
    """An LSTM whose gates see the input alone, so that it trains as a scan (Feng et al. 2024).

        f, i = sigmoid of a map of x_t each;  c_t = W_c x_t + b_c
        h_t = (f h_{t-1} + i c_t) / (f + i)
        y_t = W_O h_t

    As in sec. 3.2. The candidate c_t is the plain linear one of the text: the scan here bears
    either sign, so it needs neither logarithms nor the positive g of the appendix. The state has
    `expansion` x d_model channels, and runs in float32 under autocast.
    """

    unidirectional = True

    def __init__(
        self,
        d_model: int,
        position: Position | None = None,
        causal: bool = True,
        layer: int = 0,
        *,
        expansion: Expansion = 1.0,
    ) -> None:
        super().__init__(d_model, position, causal)
        self.d_state = round(expansion * d_model)
        if self.d_state < 1:
            raise ValueError(f"expansion={expansion} of d_model={d_model} leaves no channel")
        self.gates = nn.Linear(d_model, 3 * self.d_state)
        self.output = nn.Linear(self.d_state, d_model)

    def forward(
        self,
        x: Float[Tensor, "batch seq d_model"],
        valid: Bool[Tensor, "batch seq"] | None = None,
    ) -> Float[Tensor, "batch seq d_model"]:
        return self._mix(x, None)[0]

    def step(
        self, x: Float[Tensor, "batch 1 d_model"], at: int, state: State = None
    ) -> tuple[Float[Tensor, "batch 1 d_model"], State]:
        return self._mix(x, state)

    def state_size(self, length: int) -> int:
        return self.d_state

    def _mix(self, x: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the outputs of a sequence that follows `state`, and the last state."""
        gates = self.gates(x)
        exact_gates = gates.to(torch.promote_types(gates.dtype, torch.float32))
        forget, update, candidate = exact_gates.chunk(3, dim=-1)
        # f / (f + i) = sigmoid(log f - log i): a division by f + i would fail where both are 0.
        log_ratio = F.logsigmoid(forget) - F.logsigmoid(update)
        states, last_state = scan(log_ratio.sigmoid(), log_ratio.neg().sigmoid() * candidate, state)
        return self.output(states.to(x.dtype)), last_state
