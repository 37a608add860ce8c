import torch

from transfer.backbones.engines.chunks import CHUNK_IMAGES, DEFAULT_CHUNK_IMAGES, count_chunk_images, to_channels_last


def test_the_number_is_that_of_the_device() -> None:
    assert count_chunk_images("cpu") == CHUNK_IMAGES["cpu"]
    assert count_chunk_images("mps") == count_chunk_images("cuda") == DEFAULT_CHUNK_IMAGES


def test_only_images_and_maps_have_channels() -> None:
    maps, rows = torch.randn(2, 3, 4, 5), torch.randn(2, 3)
    assert to_channels_last(maps).is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(to_channels_last(maps), maps)
    assert to_channels_last(rows) is rows
