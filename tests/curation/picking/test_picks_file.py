import pytest

from transfer.curation.picking.picks_file import read_picks, write_picks
from transfer.data.manifests.manifest import read_manifest
from transfer.errors import TransferError

PICK = {"object": "", "suggested": "cat", "score": "0.5", "reason": "cat, dog"}


@pytest.fixture
def files(tmp_path):
    """Return the absolute paths of two images beside the CSV and of one elsewhere."""
    paths = [tmp_path / "here" / "photos" / "a b.png", tmp_path / "here" / "c.png", tmp_path / "there" / "d,é.png"]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return [str(path) for path in paths]


def test_what_is_written_is_a_manifest_and_is_read_back(tmp_path, files):
    out = tmp_path / "here" / "picks.csv"
    write_picks(out, {files[0]: PICK, files[2]: {"object": "dog", "split": "test"}, files[1]: {"object": "cat"}})
    lines = out.read_text(encoding="utf-8").splitlines()
    assert lines[:2] == ["path,object,split,suggested,score,reason", 'photos/a b.png,,,cat,0.5,"cat, dog"']
    table = read_manifest(out)
    assert table.paths.tolist() == [files[0], files[2], files[1]]
    assert [table.objects[i] if i >= 0 else "" for i in table.object] == ["", "dog", "cat"]
    assert table.split.tolist() == ["", "test", ""]
    picks = read_picks(out)
    assert picks.labels == {files[2]: "dog", files[1]: "cat"}
    assert picks.waiting == [files[0]]
    write_picks(out, picks.rows)
    assert out.read_text(encoding="utf-8").splitlines() == lines


def test_columns_of_the_user_stay_and_a_spreadsheet_may_have_changed_the_separator(tmp_path, files):
    out = tmp_path / "here" / "picks.csv"
    out.write_text("path;object;suggested;score;reason;who\nc.png;cat;;;;Ann\n", encoding="utf-8")
    picks = read_picks(out)
    write_picks(out, {files[0]: PICK} | dict(picks.rows))
    assert out.read_text(encoding="utf-8").splitlines() == [
        "path,object,suggested,score,reason,who",
        'photos/a b.png,,cat,0.5,"cat, dog",',
        "c.png,cat,,,,Ann",
    ]


def test_a_file_that_cannot_be_read_is_named(tmp_path, files):
    assert read_picks(tmp_path / "none.csv").rows == {}
    out = tmp_path / "here" / "picks.csv"
    for text in ("name,age\nx,3\n", "path,object\ngone.png,cat\n", "path,object\nc.png\n"):
        out.write_text(text)
        with pytest.raises(TransferError, match=r"repair .*picks\.csv, or replace it with --overwrite"):
            read_picks(out)
