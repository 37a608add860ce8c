"""Mixed images and labels, by hand."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from transfer.config.train import RegulariseConfig
from transfer.heads import HeadSpec
from transfer.heads.heads import Heads
from transfer.training.mixing import Labels, cutmix, mix, mixup, random_box

IMAGES = torch.randint(0, 256, (4, 3, 8, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
ORDER = torch.tensor([2, 0, 3, 1])
LABELS = Labels({"object": torch.tensor([0, 1, 2, -1])}, {"object": torch.tensor([1.0, 2.0, 3.0, 4.0])})


class Fixed:
    """Draws that are given."""

    def __init__(self, share: float) -> None:
        self.share = share

    def integers(self, n: int) -> int:
        return n - 1

    def beta(self, a: float, b: float) -> float:
        return self.share

    def permutation(self, n: int) -> np.ndarray:
        return ORDER.numpy()

    def uniform(self, low: float, high: float) -> float:
        return (low + high) / 2


def test_without_mixing_all_is_as_it_was_and_nothing_is_drawn() -> None:
    rng = np.random.default_rng(0)
    before = rng.bit_generator.state
    activation, parts = mix(IMAGES, LABELS, RegulariseConfig(), rng)
    assert activation is IMAGES
    assert parts == (LABELS,)
    assert rng.bit_generator.state == before


def test_mixup_of_pixels_by_hand() -> None:
    mixed, parts = mix(IMAGES, LABELS, RegulariseConfig(mixup=0.2), Fixed(0.75))  # type: ignore[arg-type]
    for row, partner in enumerate(ORDER.tolist()):
        expected = 0.75 * IMAGES[row].double() + 0.25 * IMAGES[partner].double()
        assert torch.allclose(mixed[row].double(), expected, atol=1e-3)
    assert [part.share for part in parts] == [0.75, 0.25]
    assert parts[0].wanted["object"].tolist() == [0, 1, 2, -1]
    assert parts[1].wanted["object"].tolist() == [2, 0, -1, 1]
    assert parts[1].weights is not None
    assert parts[1].weights["object"].tolist() == [3.0, 1.0, 4.0, 2.0]


def test_the_larger_share_comes_first() -> None:
    _, parts = mix(IMAGES, LABELS, RegulariseConfig(mixup=0.2), Fixed(0.1))  # type: ignore[arg-type]
    assert [part.share for part in parts] == pytest.approx([0.9, 0.1])
    assert parts[0].wanted["object"].tolist() == [2, 0, -1, 1]


def test_mixup_of_half_precision_activations_is_computed_in_float32() -> None:
    activation = torch.randn(4, 5).half()
    mixed = mixup(activation, ORDER, 0.3)
    assert mixed.dtype == torch.float32
    assert torch.equal(mixed, 0.3 * activation.float() + 0.7 * activation[ORDER].float())


def test_shares_of_losses_are_the_cross_entropy_of_the_mixed_label() -> None:
    heads = Heads([HeadSpec("object", classes=("a", "b", "c"))], 5)
    out = heads(torch.randn(4, 5))
    one, two, share = torch.tensor([0, 1, 2, 0]), torch.tensor([1, 1, 0, 2]), 0.7
    loss = share * heads.loss(out, {"object": one}) + (1 - share) * heads.loss(out, {"object": two})
    label = share * torch.eye(3)[one] + (1 - share) * torch.eye(3)[two]
    assert loss.item() == pytest.approx(-(label * out["object"].log_softmax(1)).sum(1).mean().item(), rel=1e-5)


def test_cutmix_by_hand() -> None:
    mixed, share = cutmix(IMAGES, ORDER, (2, 1, 5, 6))
    assert share == pytest.approx(1 - 15 / 48)
    for row, partner in enumerate(ORDER.tolist()):
        for y in range(8):
            for x in range(6):
                source = partner if 2 <= y < 5 and 1 <= x < 6 else row
                assert torch.equal(mixed[row, :, y, x], IMAGES[source, :, y, x])
    assert IMAGES.dtype == mixed.dtype == torch.uint8


def test_cutmix_shares_are_the_areas() -> None:
    images = torch.zeros(2, 1, 40, 40)
    images[1] = 1
    for seed in range(20):
        rng = np.random.default_rng(seed)
        mixed, parts = mix(images, Labels({"object": torch.tensor([0, 1])}), RegulariseConfig(cutmix=1.0), rng)
        for row in range(2):
            ones = sum(part.share * int(part.wanted["object"][row]) for part in parts)
            assert float(mixed[row].mean()) == pytest.approx(ones, abs=1e-6)


@settings(max_examples=100, deadline=None)
@given(share=st.floats(0, 1), seed=st.integers(0, 9999))
def test_a_box_inside_has_the_area_that_is_asked_for(share: float, seed: int) -> None:
    top, left, bottom, right = random_box(200, 100, share, np.random.default_rng(seed))
    assert 0 <= top <= bottom <= 200
    assert 0 <= left <= right <= 100
    area = (bottom - top) * (right - left) / 20_000
    if top > 0 and left > 0 and bottom < 200 and right < 100:
        assert area == pytest.approx(1 - share, abs=0.02)
    else:
        assert area <= 1 - share + 0.02


def test_given_both_each_comes_about_half_of_the_time_with_its_own_shares() -> None:
    rng, config = np.random.default_rng(0), RegulariseConfig(mixup=0.3, cutmix=1.0)
    cut = sum(mix(IMAGES, LABELS, config, rng)[0].dtype == torch.uint8 for _ in range(300))
    assert 110 < cut < 190
    shares = [mix(IMAGES, LABELS, RegulariseConfig(mixup=0.3), rng)[1][0].share for _ in range(3000)]
    expected = np.random.default_rng(1).beta(0.3, 0.3, 3000)
    assert np.mean(shares) == pytest.approx(np.maximum(expected, 1 - expected).mean(), abs=0.01)


@pytest.mark.parametrize("seed", range(20))
def test_a_box_lies_around_a_centre_anywhere_in_the_image(seed: int) -> None:
    """Yun et al. 2019, appendix A: a uniform centre, sides of sqrt(1 - share), cut at the borders."""
    height, width, share = 20, 31, 0.7
    centre = np.random.default_rng(seed).random(2) * (height, width)
    half = np.array([height, width]) * 0.3**0.5 / 2
    low, high = (np.round(centre + side * half).clip(0, (height, width)).astype(int).tolist() for side in (-1, 1))
    assert random_box(height, width, share, np.random.default_rng(seed)) == (*low, *high)
