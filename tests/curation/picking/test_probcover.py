import numpy as np

from transfer.curation.picking.probcover import PURITY, choose_covering_balls, choose_radius


def test_the_radius_is_the_largest_of_which_nearly_all_balls_are_pure(make_pool):
    z = make_pool(n=200, spread=0.6).features
    cluster = np.argmax(z[:, :6], 1)

    def measure_purity(least):
        inside = z @ z.T >= least
        return np.mean([len(set(cluster[row])) == 1 for row in inside])

    least = choose_radius(z, cluster)
    assert measure_purity(least) >= PURITY
    assert measure_purity(least - 0.01) < PURITY


def test_the_first_ball_holds_most_images_and_the_next_most_others(make_pool):
    pool = make_pool(n=90, spread=0.05)
    near = pool.features @ pool.features.T > 0.5
    chosen = [each.row for each in choose_covering_balls(pool, 6)]
    sizes = near.sum(1)[chosen]
    assert near[chosen].any(0).all()
    assert sizes.tolist() == sorted(sizes, reverse=True)
