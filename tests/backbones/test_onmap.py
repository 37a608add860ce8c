import torch
from torch import nn

from transfer.backbones.onmap import OnMap


def test_it_is_a_rectified_convolution_averaged_over_places():
    convolution = nn.Conv2d(5, 7, 1)
    linear = nn.Linear(5, 7)
    linear.load_state_dict({"weight": convolution.weight.flatten(1), "bias": convolution.bias})
    maps = torch.randn(2, 5, 3, 4)
    wanted = torch.relu(convolution(maps)).mean((2, 3))
    torch.testing.assert_close(OnMap(linear)(maps), wanted)
    assert not torch.allclose(linear(maps.mean((2, 3))), wanted)  # pooled first, it would be another answer
