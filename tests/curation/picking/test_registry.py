import subprocess
import sys

import pytest

from transfer.curation.picking.registry import STRATEGIES, find_strategy, summarise_strategies
from transfer.errors import TransferError


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize("labelled", [0, 9])
def test_each_strategy_returns_distinct_candidates_and_the_same_for_a_seed(make_pool, name, labelled):
    strategy, pool = find_strategy(name), make_pool(n=40, labelled=labelled)
    if strategy.needs_labels and not labelled:
        return
    for n in (1, 17, 40 - labelled):
        rows = [each.row for each in strategy.load()(pool, n)]
        assert len(set(rows)) == n
        assert pool.candidates[rows].all()
        assert [each.row for each in strategy.load()(make_pool(n=40, labelled=labelled), n)] == rows


def test_a_near_name_is_suggested():
    with pytest.raises(TransferError, match=r"unknown strategy 'typiclus' \(did you mean 'typiclust'\?\); known: auto"):
        find_strategy("typiclus")


def test_summaries_need_no_torch():
    code = "import sys, transfer.curation.picking.registry as r; r.summarise_strategies(); "
    code += "assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert summarise_strategies().keys() == STRATEGIES.keys()
