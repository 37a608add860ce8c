from dataclasses import replace

import numpy as np

from transfer.curation.picking import typiclust
from transfer.curation.picking.typiclust import MIN_CLUSTER, TYPICAL_NEIGHBOURS, choose_typical, cluster_features


def choose_naively(pool, n):
    """Algorithm 1 of the paper, on the same clusters."""
    count = int(pool.covered.sum()) + n
    cluster = cluster_features(pool.features, count, pool.seed)
    labels = [int((cluster[pool.covered] == k).sum()) for k in range(count)]
    chosen = []
    while len(chosen) < n:
        ranks = []
        for k in range(count):
            rows = [r for r in np.flatnonzero(cluster == k) if pool.candidates[r] and r not in chosen]
            if rows:
                size = int((cluster == k).sum())
                ranks.append((size < MIN_CLUSTER, labels[k], -size, k, rows))
        *_, k, rows = min(ranks)
        members = np.flatnonzero(cluster == k)
        near = min(TYPICAL_NEIGHBOURS, max(len(members) // 2, 1))
        typicality = []
        for row in rows:
            distances = sorted(np.linalg.norm(pool.features[row] - pool.features[m]) for m in members if m != row)
            typicality.append(1 / np.mean(distances[:near]) if distances else 1.0)
        chosen.append(int(rows[int(np.argmax(typicality))]))
        labels[k] += 1
    return chosen


def test_it_chooses_what_the_paper_says(make_pool):
    for labelled in (0, 4):
        pool = make_pool(n=70, labelled=labelled)
        assert [each.row for each in choose_typical(pool, 8)] == choose_naively(pool, 8)


def test_a_cluster_with_a_label_comes_after_those_without(make_pool):
    pool = make_pool(n=90, spread=0.05)
    near = pool.features @ pool.features.T > 0.5
    pool = replace(pool, covered=np.arange(90) == 0, candidates=np.arange(90) != 0)
    chosen = [each.row for each in choose_typical(pool, 5)]
    assert not near[0][chosen].any()
    assert near[[0, *chosen]].any(0).all()


def test_small_sets_and_identical_images_have_typical_ones_too(make_pool):
    pool = make_pool(n=7)
    assert sorted(each.row for each in choose_typical(pool, 7)) == list(range(7))
    same = replace(pool, features=np.ones_like(pool.features) / np.sqrt(8).astype(np.float32))
    assert len({each.row for each in choose_typical(same, 4)}) == 4


def test_blocks_of_rows_change_nothing(make_pool, monkeypatch):
    pool = make_pool(90)
    whole = typiclust.choose_typical(pool, 5)
    monkeypatch.setattr(typiclust, "COVERED_AT_ONCE", 7)
    assert [each.row for each in typiclust.choose_typical(pool, 5)] == [each.row for each in whole]
