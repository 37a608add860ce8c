import pytest
import torch

from transfer.errors import TransferError
from transfer.probes.scaling import check_finite, compute_feature_scale


def draw() -> torch.Tensor:
    g = torch.Generator().manual_seed(0)
    return torch.randn(400, 5, generator=g) * torch.tensor([1.0, 2.0, 0.1, 8.0, 0.0]) + 3


def test_a_feature_is_scaled_halfway_to_standardisation() -> None:
    x, centre = draw(), draw().mean(0)
    deviation = x.std(0, correction=0)
    scale = compute_feature_scale(x - centre, centre)
    torch.testing.assert_close(scale[:4], 1 / (deviation * deviation.mean()).sqrt()[:4])
    assert scale[4] == 0, "a constant feature"


def test_blocks_scale_as_if_each_had_been_given_its_share_before() -> None:
    """As Head2Toe's reference weighting: the sum of a block's deviations is its share."""
    x, shares = draw()[:, :4], (0.3, 0.7)
    blocks = [(slice(0, 1), shares[0]), (slice(1, 4), shares[1])]
    weighted = torch.cat([x[:, b] * (share / x[:, b].std(0, correction=0).sum()) for b, share in blocks], 1)
    found = (x - x.mean(0)) * compute_feature_scale(x - x.mean(0), x.mean(0), blocks)
    wanted = (weighted - weighted.mean(0)) * compute_feature_scale(weighted - weighted.mean(0), weighted.mean(0))
    torch.testing.assert_close(found, wanted)


def test_non_finite_features_are_refused() -> None:
    x = draw()
    check_finite(x, "images")
    x[7, 1] = x[9, 0] = torch.nan
    with pytest.raises(TransferError, match=r"features of 2 of 400 images are NaN .* number 7"):
        check_finite(x, "images")
