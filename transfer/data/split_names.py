"""Names of splits as people write them: train, Training, valid, dev, TEST, hold-out, …"""

import re
from collections.abc import Iterable

SPLITS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "development": "val",
    "test": "test",
    "testing": "test",
    "eval": "test",
    "evaluation": "test",
    "holdout": "test",
    "heldout": "test",
}
"""Split that a name means, in lower case and without what separates its words."""
_PLAIN = ("train", "val", "valid", "validation", "test")
_EVALUATION = ("eval", "evaluation")
_WORDS = re.compile(r"^(images|imgs|data)|(images|imgs|data|set|split|labels)$")  # train_images, test set, train-labels


def read_splits(names: Iterable[str]) -> dict[str, str]:
    """Return what each of `names` means: ``train``, ``val``, ``test``, or ``""`` for another thing than a split.

    ``eval`` means test; beside another name for test, and none for val, it means val.

    Examples
    --------
    >>> read_splits(["Training", "hold-out", "TEST_SET", "cat"])
    {'Training': 'train', 'hold-out': 'test', 'TEST_SET': 'test', 'cat': ''}
    >>> read_splits(["train", "eval", "test"])
    {'train': 'train', 'eval': 'val', 'test': 'test'}
    """
    plain = {name: _simplify(name) for name in names}
    found = {name: SPLITS.get(word, "") for name, word in plain.items()}
    evaluation = [name for name, word in plain.items() if word in _EVALUATION]
    others = {split for name, split in found.items() if name not in evaluation}
    return found | dict.fromkeys(evaluation, "val") if "test" in others and "val" not in others else found


def describe_splits(meanings: dict[str, str]) -> str:
    """Return how the names of splits are read; an empty string if this is plain, as for ``Train`` and ``valid``.

    Examples
    --------
    >>> describe_splits({"Training": "train", "TEST": "test"})
    'Training is train, TEST is test'
    """
    named = {name: split for name, split in meanings.items() if split}
    if all(name.lower() in _PLAIN for name in named):
        return ""
    return ", ".join(f"{name} is {split}" for name, split in named.items())


def _simplify(name: str) -> str:
    word = re.sub(r"[\W_]+", "", name.lower())
    return word if word in SPLITS else _WORDS.sub("", word)
