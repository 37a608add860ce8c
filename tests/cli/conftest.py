import pytest


@pytest.fixture(autouse=True)
def working_directory(tmp_path_factory, monkeypatch):
    """Run commands in a folder of their own, where runs without --out are saved."""
    folder = tmp_path_factory.mktemp("cwd")
    monkeypatch.chdir(folder)
    return folder
