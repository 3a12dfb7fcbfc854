"""Long short-term memory."""

from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from attnlab.mixer.base import Mixer, State
from attnlab.position.base import Position
from attnlab.recurrence.cells import Cells


class LSTM(Mixer):
    """Carries d_model gated cells from left to right (Hochreiter & Schmidhuber 1997).

        f, i, o = sigmoid of a map of (x_t, h_{t-1}) each;  g = tanh of one
        c_t = f c_{t-1} + i g
        h_t = o tanh(c_t);  y_t = W_O h_t

    One layer of the library's fused cells, with the forget gate of Gers et al. (2000), and a
    projection into the stream. Autocast runs the cells as the library sees fit.

    Initialisation:
        cells.* | U(1/sqrt(d_model))
    """

    unidirectional = True

    def __init__(
        self, d_model: int, position: Position | None = None, causal: bool = True, layer: int = 0
    ) -> None:
        super().__init__(d_model, position, causal)
        self.d_model = d_model
        self.cells = Cells(d_model, d_model, batch_first=True)
        self.output = nn.Linear(d_model, d_model)

    def forward(
        self,
        x: Float[Tensor, "batch seq d_model"],
        valid: Bool[Tensor, "batch seq"] | None = None,
    ) -> Float[Tensor, "batch seq d_model"]:
        return self.output(self.cells(x)[0])

    def step(
        self, x: Float[Tensor, "batch 1 d_model"], at: int, state: State = None
    ) -> tuple[Float[Tensor, "batch 1 d_model"], State]:
        # The library's states have the layer first, those of a mixer have the batch first.
        state_before = state and tuple(rearrange(part, "b d -> 1 b d") for part in state)
        hidden, state_after = self.cells(x, state_before)
        return self.output(hidden), tuple(rearrange(part, "1 b d -> b d") for part in state_after)

    def state_size(self, length: int) -> int:
        return 2 * self.d_model
