"""The layers of one head: linear, or an MLP."""

import itertools
from collections.abc import Sequence

from torch import nn

from transfer.heads.dropout import DropConnect, Dropout, VanillaDropout

DROPOUTS = {"inverted": Dropout, "vanilla": VanillaDropout}
ACTIVATIONS = {"relu": nn.ReLU, "gelu": nn.GELU, "tanh": nn.Tanh, "elu": nn.ELU}


def build_mlp(  # parameters named as the options of HeadConfig
    width: int,
    hidden: Sequence[int],
    outputs: int,
    *,
    activation: str,
    dropout: float,
    init: str,
    dropout_kind: str = "inverted",
    drop_connect: float = 0.0,
) -> nn.Sequential:
    """Return a linear layer, or an MLP with `hidden` sizes; weights are initialised by `init`, biases are zero.

    Parameters
    ----------
    width, outputs : int
        Sizes of input and output.
    activation : str
        A key of :data:`ACTIVATIONS`, between layers.
    dropout : float
        Probability on each layer's input.
    init : {"xavier", "he"}
        Glorot and Bengio 2010, normal; He et al. 2015, normal, fan-in.
    dropout_kind : {"inverted", "vanilla"}
    drop_connect : float
        Probability that a weight is dropped for a training row.
    """
    sizes = [width, *hidden, outputs]
    layers = nn.Sequential()  # named so that saved heads have the same keys with and without dropout
    for i, (inputs, out) in enumerate(itertools.pairwise(sizes)):
        if dropout:
            layers.add_module(f"dropout{i}", DROPOUTS[dropout_kind](dropout))
        linear = DropConnect(inputs, out, drop_connect) if drop_connect else nn.Linear(inputs, out)
        if init == "he":
            nn.init.kaiming_normal_(linear.weight, nonlinearity="relu")
        else:
            nn.init.xavier_normal_(linear.weight)
        nn.init.zeros_(linear.bias)
        layers.add_module(str(2 * i), linear)
        if i < len(hidden):
            layers.add_module(str(2 * i + 1), ACTIVATIONS[activation]())
    return layers
