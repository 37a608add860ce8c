"""Command lines as typed configs, and what is wrong with one in a line."""

import pytest

from transfer.cli.arguments import WithJsonFlag, parse, parse_options, record_plugins, split_plugins
from transfer.cli.main import main
from transfer.config.train import CompareConfig, LearnConfig, TrainConfig
from transfer.errors import TransferError


def test_a_command_that_can_print_json_says_whether_it_shall() -> None:
    for flags, wanted in ([], False), (["--json"], True):
        parsed = parse(["train", "--data", "images", *flags])
        assert isinstance(parsed, WithJsonFlag)
        assert (parsed.json, parsed.config.data.data) == (wanted, "images")


@pytest.mark.parametrize("words", [["images"], ["images", "--lr", "0.5"], ["--lr", "0.5", "images"]])
def test_one_word_alone_is_the_data(words: list[str]) -> None:
    assert parse(["train", *words]).config.data.data == "images"


@pytest.mark.parametrize(
    ("words", "refit"), [([], None), (["--refit"], True), (["--no-refit"], False), (["--refit", "False"], False)]
)
def test_refit_is_a_bare_flag_with_a_third_state(words: list[str], refit: bool | None) -> None:
    assert parse(["train", *words, "--epochs", "3"]).config.learn.refit is refit


def test_options_of_a_default_are_kept() -> None:
    default = TrainConfig(learn=LearnConfig(epochs=7, lr=0.5))
    learn = parse_options(TrainConfig, TrainConfig, ["--lr", "0.25"], "recipe.py", default).learn
    assert (learn.epochs, learn.lr) == (7, 0.25)


def test_plugins_are_taken_out_and_recorded_in_the_run() -> None:
    words, plugins = split_plugins(["train", "--plugin", "one", "--lr", "1", "--plugin=two.py"])
    assert (words, plugins) == (["train", "--lr", "1"], ("one", "two.py"))
    assert record_plugins(CompareConfig(), plugins).train.run.plugin == plugins
    with pytest.raises(TransferError, match="--plugin: give the name"):
        split_plugins(["train", "--plugin"])


def test_words_after_a_value_of_several_are_joined_by_commas() -> None:
    with pytest.raises(TransferError, match=r"by commas, --targets colour,size; see transfer train --help"):
        parse(["train", "--data", "images", "--targets", "colour", "size"])
    with pytest.raises(TransferError, match=r"unexpected argument second; see"):  # --out takes one value
        parse(["train", "--data", "images", "--out", "first", "second"])


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (
            ["train", "--polici", "full"],
            "unknown option --polici (did you mean '--policy'?); see transfer train --help",
        ),
        (["trian"], "unknown command 'trian' (did you mean 'train'?); known: demo, "),
        ([], "the command is missing; known: demo, "),
        (["export", "runs/a", "--overwrite"], "unknown option --overwrite; see "),  # not like --coverage
        (["train", "extra", "more"], "unexpected argument more; see "),
        (["pick", "images", "--stratgy", "margin"], "unknown option --stratgy (did you mean '--strategy'?); see "),
        (["train", "--epochs", "many"], "--epochs 'many': it must be a whole number, 1 or more"),
        (["train", "--balance", "some"], "--balance 'some': it must be one of none, loss, sampling"),
        (["train", "--lr"], "Missing value for argument '--lr'"),
        (["evaluate"], "Missing from transfer evaluate: PATH"),
    ],
)
def test_bad_arguments_are_one_line_and_code_2(capsys, argv: list[str], says: str) -> None:
    assert main(argv) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(f"transfer: {says}")
    assert len(captured.err.splitlines()) == 1
    assert not captured.out
