from transfer.adaptation.losses.entropy import InformationMaximisation
from transfer.adaptation.losses.pseudo_labels import PseudoLabels
from transfer.adaptation.registry import find_method


def test_it_is_information_maximisation_with_pseudo_labels() -> None:
    method = find_method("shot")
    losses = method.losses(8, 3, None)
    assert [(weight, type(loss)) for weight, loss in losses] == [(1.0, InformationMaximisation), (0.3, PseudoLabels)]
    assert method.source_free
    assert method.warmup == 0.4
