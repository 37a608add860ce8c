from dataclasses import replace

import numpy as np

from transfer.curation.picking.badge import choose_diverse_gradients


def choose_naively(pool, n):
    """k-means++ on gradient embeddings that are formed."""
    rows = np.flatnonzero(pool.candidates)
    error = pool.probabilities[rows] - np.eye(3)[pool.probabilities[rows].argmax(1)]
    embedding = np.stack([np.outer(e, z).ravel() for e, z in zip(error, pool.features[rows], strict=True)])
    chosen, rng = [int(np.linalg.norm(embedding, axis=1).argmax())], np.random.default_rng(pool.seed)
    while len(chosen) < n:
        distances = np.min([((embedding - embedding[c]) ** 2).sum(1) for c in chosen], 0)
        distances[chosen] = 0
        chosen.append(int(rng.choice(len(rows), p=distances / distances.sum())))
    return [int(rows[c]) for c in chosen]


def test_it_is_k_means_plus_plus_on_gradient_embeddings(make_pool):
    for seed in range(5):
        pool = make_pool(labelled=8, seed=seed)
        assert [each.row for each in choose_diverse_gradients(pool, 12)] == choose_naively(pool, 12)


def test_identical_images_are_chosen_once_each(make_pool):
    pool = make_pool(n=20, labelled=5)
    same = replace(pool, features=np.ones_like(pool.features), probabilities=np.full((20, 3), 1 / 3))
    assert sorted(each.row for each in choose_diverse_gradients(same, 15)) == list(range(5, 20))
