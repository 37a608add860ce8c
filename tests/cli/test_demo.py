import pytest

from transfer.cli.demo import demo
from transfer.config.commands import DemoConfig


@pytest.mark.slow
def test_transfer_is_clearly_ahead_of_scratch_with_few_labels():
    rows = {line.split()[0]: line.split() for line in demo(DemoConfig()).splitlines() if line.strip()}
    accuracy = {name: float(rows[name][1]) for name in ("linear_probe", "partial:2", "full", "scratch")}
    assert min(accuracy["linear_probe"], accuracy["partial:2"], accuracy["full"]) > accuracy["scratch"] + 0.1
