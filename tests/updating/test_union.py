from collections import Counter

import numpy as np
import pytest

from transfer.config.train import DataConfig
from transfer.runs.image_list import ListedImage
from transfer.updating.sources import Source
from transfer.updating.union import Union

FAR = np.uint64(0x0F0F0F0F0F0F0F0F)  # multiplied by odd numbers: hashes far from each other


def image(name: str, label: str = "a", part: str = "", domain: str = "x", **more: str) -> ListedImage:
    """A line whose digest is its name's first word, so that "1 copy" has the bytes of "1"."""
    digest = name.partition(" ")[0]
    return {"path": f"/{name}", "split": part, "sha256": digest, "object": label, "domain": domain} | more


def hash_of(digest: str) -> np.uint64:
    rng = np.random.default_rng(int.from_bytes(digest.encode(), "big"))
    return rng.integers(0, 2**63, dtype=np.uint64)


def source(*images: ListedImage, hashes: dict[str, int] | None = None) -> Source:
    found = [np.uint64((hashes or {}).get(each["sha256"], hash_of(each["sha256"]))) for each in images]
    return Source(list(images), np.array(found, np.uint64))


OLD = source(
    *(image(f"train{i}", "ab"[i % 2], "train") for i in range(12)),
    *(image(f"val{i}", "ab"[i % 2], "val") for i in range(4)),
    *(image(f"test{i}", "ab"[i % 2], "test") for i in range(4)),
)


def unite(added: Source | None = None, corrections: Source | None = None, old: Source = OLD, **data: float) -> Union:
    return Union.of(old, added, corrections, DataConfig(**data), seed=0)


def parts(union: Union) -> dict[str, str]:
    return {image["path"]: image["split"] for image in union.images[union.old :]}


def test_old_images_stay_as_they_are_and_the_old_source_is_not_changed() -> None:
    before = [dict(each) for each in OLD.images]
    union = unite(source(*(image(f"new{i}", "c") for i in range(50))), source(image("train0", "c")))
    assert union.images[1:20] == before[1:]
    assert OLD.images == before
    assert [each["split"] for each in union.images[:20]] == [each["split"] for each in before]


def test_new_images_are_split_by_the_same_fractions_in_each_class() -> None:
    union = unite(source(*(image(f"new{i}", "ac"[i % 2]) for i in range(200))), test=0.3, val=0.1)
    counts = Counter((each["object"], each["split"]) for each in union.images[union.old :])
    assert counts == {(c, part): n for c in "ac" for part, n in (("test", 30), ("val", 7), ("train", 63))}
    assert union.count_new() == {"train": 126, "val": 14, "test": 60}
    assert union.find_new_names("object") == ["c"]
    assert union.find_new_names("domain") == []


def test_the_seed_decides_the_split() -> None:
    added = source(*(image(f"new{i}") for i in range(100)))
    first, second = (Union.of(OLD, added, None, DataConfig(), seed) for seed in (0, 1))
    assert parts(first) == parts(Union.of(OLD, added, None, DataConfig(), 0)) != parts(second)


def test_a_run_without_test_images_gets_none() -> None:
    old = source(*(image(f"train{i}", "ab"[i % 2], "train") for i in range(12)))
    union = unite(source(*(image(f"new{i}") for i in range(50))), old=old)
    assert union.count_new() == {"train": 50, "val": 0, "test": 0}


def test_a_split_that_new_images_have_is_respected() -> None:
    added = source(*(image(f"new{i}", part=("train", "val", "test")[i % 3]) for i in range(30)))
    assert unite(added).count_new() == {"train": 10, "val": 10, "test": 10}


@pytest.mark.parametrize("part", ["train", "val", "test"])
def test_a_near_duplicate_joins_the_old_image(part: str) -> None:
    near = int(hash_of(f"{part}1")) ^ 0b111  # three bits differ
    added = source(*(image(f"new{i}", "b", "val") for i in range(5)), hashes={"new3": near})
    union = unite(added)
    assert parts(union) == {f"/new{i}": part if i == 3 else "val" for i in range(5)}
    assert any(f": {part} 1" in note for note in union.notes)


def test_a_near_duplicate_of_train_and_test_images_is_never_trained_on() -> None:
    base = int(hash_of("train1"))
    hashes = {"train1": base, "test1": base ^ 0b11111111, "new0": base ^ 0b1111}  # between both
    old = source(*OLD.images, hashes=hashes)
    assert parts(unite(source(image("new0", "b"), hashes=hashes), old=old)) == {"/new0": "test"}


def test_a_group_stays_on_one_side() -> None:
    old = source(*(each | {"group": f"g{i}"} for i, each in enumerate(OLD.images)))
    added = source(*(image(f"new{i}", group="g17" if i < 5 else "h") for i in range(10)))  # g17 is tested on
    found = parts(unite(added, old=old))
    assert {found[f"/new{i}"] for i in range(5)} == {"test"}
    assert len({found[f"/new{i}"] for i in range(5, 10)}) == 1


def test_near_duplicates_among_new_images_stay_together() -> None:
    hashes = {f"new{i}": int(hash_of(f"pair{i // 2}")) ^ (i % 2) for i in range(100)}
    found = parts(unite(source(*(image(f"new{i}") for i in range(100)), hashes=hashes)))
    assert all(found[f"/new{i}"] == found[f"/new{i + 1}"] for i in range(0, 100, 2))
    assert set(found.values()) == {"train", "val", "test"}


def test_an_image_that_is_there_is_not_added() -> None:
    union = unite(source(image("test0 copy", "a"), image("train1 copy", ""), image("new")))
    assert [each["path"] for each in union.images[union.old :]] == ["/new"]
    assert (union.known, union.conflicting, union.labelled) == (2, 0, 0)
    assert "2 new images not added: the run has the same files" in union.describe_changes()


def test_a_new_label_of_an_unlabelled_image_counts() -> None:
    old = source(*OLD.images, image("unknown", "", "train", domain=""))
    union = unite(source(image("unknown copy", "b", domain="x")), old=old)
    assert union.images[20] == image("unknown", "b", "train")
    assert (union.labelled, union.known, len(union.images)) == (1, 1, 21)


def test_a_conflict_stands_beside_the_old_image_in_its_part() -> None:
    union = unite(source(image("test0 copy", "b")))
    assert union.images[20] == image("test0 copy", "b", "test")
    assert union.conflicting == 1


def test_a_correction_replaces_labels_and_keeps_part_and_path() -> None:
    union = unite(None, source(image("test0 copy", "c", domain=""), image("val1 copy", "", domain="y")))
    assert union.images[16] == image("test0", "c", "test")
    assert union.images[13] == image("val1", "b", "val", domain="y")
    assert union.corrected == [
        {"path": "/test0", "column": "object", "before": "a", "after": "c"},
        {"path": "/val1", "column": "domain", "before": "x", "after": "y"},
    ]
    assert len(union.images) == 20
    assert union.describe_changes() == ["2 labels corrected: /test0: object a is c, /val1: domain x is y"]
    assert union.find_new_names("object") == ["c"]
    assert union.find_new_names("domain") == ["y"]


def test_a_correction_that_changes_nothing_is_counted() -> None:
    union = unite(None, source(image("test0 copy", "a"), image("test1 copy", "c"), image("val1 copy", "b", domain="")))
    assert union.describe_changes() == [
        "1 label corrected: /test1: object b is c",
        "2 corrections agreed with the run's labels already",
    ]
    assert union.images[16] == image("test0", "a", "test")


def test_a_correction_of_all_duplicates() -> None:
    old = source(*OLD.images, image("test0 copy", "a", "test"))
    union = unite(None, source(image("test0 again", "b")), old=old)
    assert [each["object"] for each in union.images if each["sha256"] == "test0"] == ["b", "b"]
    assert len(union.corrected) == 2


def test_a_correction_wins_over_the_label_of_the_same_image_in_the_added_ones() -> None:
    added = source(image("test0 copy", "b"), image("new", "a"))
    union = unite(added, source(image("test0 again", "c"), image("new again", "b")))
    assert (union.conflicting, union.known) == (0, 2)
    assert union.images[16]["object"] == "c"
    assert union.images[20:] == [image("new again", "b", "train")]


def test_corrected_images_that_are_new_are_trained_on_and_the_last_correction_counts() -> None:
    union = unite(None, source(*(image(f"new{i}") for i in range(50)), image("new0 again", "b")))
    assert union.count_new() == {"train": 50, "val": 0, "test": 0}
    assert union.images[20]["object"] == "b"


def test_a_new_image_without_a_label_is_trained_on_unlabelled() -> None:
    assert set(parts(unite(source(*(image(f"new{i}", "") for i in range(30))))).values()) == {"train"}


def test_another_value_of_a_known_image_is_named_and_not_taken() -> None:
    old = source(image("1", tags="red|round"), image("2", tags="red"), image("3"))
    added = source(image("1", tags="round|red"), image("2", tags="red|flat", domain="y"), image("3", tags="flat"))
    union = Union.of(old, added, None, DataConfig(), 0, {"tags": "multilabel"})
    assert [each.get("tags") for each in union.images] == ["red|round", "red", "flat"]
    notes = union.describe_changes()
    assert "1 of them differs in tags: the run's stays, and --corrections changes it" in notes
    assert any("1 of them differs in domain" in note for note in notes)
    corrected = Union.of(
        old, added, source(image("2", tags="flat", domain="x")), DataConfig(), 0, {"tags": "multilabel"}
    )
    assert not any("of them differs" in note for note in corrected.describe_changes())


def test_images_without_objects_conflict_and_are_split_by_their_labels() -> None:
    old = source(
        *(image(f"o{i}", "", "train" if i % 4 else "test", tags=("a", "b", "a|b", "none")[i % 4]) for i in range(16))
    )
    added = source(
        image("o1", "", tags="a"),  # the run says b
        image("o2", "", tags="b|a"),  # as the run
        *(image(f"n{i}", "", tags=("a", "b", "a|b", "none")[i % 4]) for i in range(80)),
    )
    union = Union.of(old, added, None, DataConfig(test=0.25), 0, {"tags": "multilabel"})
    assert (union.conflicting, union.known) == (1, 1)
    new = [each for each in union.images[union.old :] if each["path"].startswith("/n")]
    tested = Counter(label for each in new if each["split"] == "test" for label in each["tags"].split("|"))
    assert all(abs(tested[label] - 10) <= 1 for label in "ab")
    assert len(new) == 80
