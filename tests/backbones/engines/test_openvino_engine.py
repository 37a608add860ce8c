from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from transfer.backbones.engines.graph import export_stages
from transfer.backbones.engines.openvino_engine import OpenVinoEngine


def test_it_computes_what_torch_does_the_same_on_any_number_of_threads(small, with_statistics):
    backbone = with_statistics(small("mobilenetv3_small_050", 64))
    images = torch.randn(12, 3, 64, 64)
    cut = len(backbone.stages)
    with torch.no_grad():
        expected = backbone.trunk(images, cut).numpy()
    graph, _ = export_stages(backbone, cut, 0, images[:1])
    found = []
    for threads in (1, 2, 5):
        engine = OpenVinoEngine(graph, threads)
        with ThreadPoolExecutor(threads) as pool:
            found.append(np.concatenate(list(pool.map(engine, [image[None].numpy() for image in images]))))
    assert np.abs(found[0] - expected).max() <= 1e-5 * np.abs(expected).max()
    assert all(np.array_equal(found[0], other) for other in found)


def test_an_output_outlives_the_next_call(small):
    graph, _ = export_stages(small(), 3, 0, torch.randn(1, 3, 32, 32))
    engine = OpenVinoEngine(graph, 1)
    first = engine(np.ones((1, 3, 32, 32), np.float32))
    held = first.copy()
    engine(np.zeros((1, 3, 32, 32), np.float32))
    assert np.array_equal(first, held)
