import numpy as np
import pytest
from PIL import Image
from studies import appearance_shifts as looks


@pytest.fixture(scope="module")
def domains(tmp_path_factory):
    """Return the images of a set of three classes in every look."""
    root = tmp_path_factory.mktemp("sets")
    rng = np.random.default_rng(0)
    for name in ("ape", "bee", "cat"):
        (root / "set" / name).mkdir(parents=True)
        for i in range(14):
            pixels = rng.integers(0, 256, (40, 60, 3), np.uint8)
            Image.fromarray(pixels).save(root / "set" / name / f"{i}.png")
    return looks.write_looks("set", root, root / "looks"), root


def test_each_photograph_is_in_one_half_and_in_every_look(domains):
    folder, root = domains
    names = sorted(path.name for path in folder.iterdir())
    assert names == sorted(f"{look}-{half}" for look in ("photo", *looks.TRANSFORMS) for half in ("first", "second"))
    halves = [{str(file.relative_to(folder / d)) for file in (folder / d).glob("*/*.jpg")} for d in names]
    assert len(halves[0]) == 21
    shown = dict(zip(names, halves, strict=True))
    for look in looks.TRANSFORMS:
        assert shown[f"{look}-first"] == shown["photo-first"]
        assert not shown[f"{look}-first"] & shown["photo-second"]
    before = {file: file.read_bytes() for file in folder.glob("*/*/*.jpg")}
    victim = folder / "noise-first" / sorted(shown["noise-first"])[0]
    victim.unlink()
    looks.write_looks("set", root, root / "looks")
    assert {file: file.read_bytes() for file in folder.glob("*/*/*.jpg")} == before


@pytest.mark.parametrize("name", sorted(looks.TRANSFORMS))
def test_a_transform_changes_the_look_and_not_the_size(name):
    x, y = np.meshgrid(np.arange(224), np.arange(224))
    disc = np.where((x - 112) ** 2 + (y - 112) ** 2 < 60**2, 200, 60).astype(np.uint8)
    image = Image.merge("RGB", [Image.fromarray(disc)] * 3)
    seen = looks.TRANSFORMS[name](image, np.random.default_rng(0)).convert("RGB")
    pixels, before = np.asarray(seen, float), np.asarray(image, float)
    if name != "edges":
        assert seen.size == image.size
    assert np.abs(pixels[:200, :200] - before[:200, :200]).mean() > 2
    again = looks.TRANSFORMS[name](image, np.random.default_rng(0)).convert("RGB")
    assert seen.tobytes() == again.tobytes()


def test_a_thinned_target_loses_images_of_half_its_classes(domains):
    images = looks.read_looks(domains[0], None)
    pairs = looks.list_pairs(["set"])
    assert len(pairs) == 3 * len(looks.TRANSFORMS)
    equal = next(pair for pair in pairs if not pair.thinned)
    whole = looks.images_of_pair(images, equal).table
    source, target = (whole.domain == whole.domains.index(name) for name in equal.domains)
    assert (source | target).all()
    assert np.bincount(whole.object[source]).tolist() == np.bincount(whole.object[target]).tolist() == [7, 7, 7]
    thinned = looks.AppearancePair("set", equal.transform, equal.to_photograph, True)
    table = looks.images_of_pair(images, thinned).table
    left = np.bincount(table.object[table.domain == table.domains.index(thinned.domains[1])])
    assert sorted(left) == [2, 2, 7]  # half of three classes, rounded, and a third of seven images
    assert (table.domain == table.domains.index(thinned.domains[0])).sum() == 21


def test_rules_are_set_on_some_sets_and_transforms_alone():
    pairs = looks.list_pairs(["office31", "flowers12", "digits"])
    assert len(pairs) == len({pair.name for pair in pairs}) == 63
    assert sum(pair.development for pair in pairs) == 24
    assert not any(pair.development for pair in pairs if pair.data == "digits" or pair.transform == "sketch")
    assert {pair.to_photograph for pair in pairs if pair.thinned} == {True, False}
