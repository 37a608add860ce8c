import logging
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest

from transfer.errors import TransferError, UnknownName
from transfer.runtime import plugins
from transfer.runtime.plugins import load_entry_points, load_plugin, name_recorded_plugins


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working directory; modules loaded from it and its place on the path are forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(plugins, "_files", {})
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_a_module_in_the_working_directory_is_loaded_once(folder: Path) -> None:
    (folder / "my_plugin.py").write_text("import my_helper\nLOADED = my_helper.LOADED\nLOADED.append(1)\n")
    (folder / "my_helper.py").write_text("LOADED = []\n")
    assert load_plugin("my_plugin") is load_plugin("my_plugin")
    assert sys.modules["my_plugin"].LOADED == [1]


def test_a_file_is_loaded_once_whatever_its_folder(folder: Path) -> None:
    (folder / "inner").mkdir()
    (folder / "inner" / "my_file.py").write_text("import logging\nLOADED = []\n")
    module = load_plugin("inner/my_file.py")
    assert module is load_plugin(str(folder / "inner" / "my_file.py"))
    assert module is sys.modules["my_file"]


@pytest.mark.parametrize("content", ["{}", '{"run": {}}', '{"run": {"plugin": 3}}', '{"train": 3}', "[", None])
def test_a_folder_that_records_no_plugin_leaves_the_error_as_it_is(folder: Path, content: str | None) -> None:
    if content:
        (folder / "config.json").write_text(content)
    with pytest.raises(UnknownName, match=r"^unknown policy 'x'$"), name_recorded_plugins(folder):
        raise UnknownName("unknown policy 'x'")


def test_the_error_names_each_recorded_plugin(folder: Path) -> None:
    (folder / "config.json").write_text('{"train": {"run": {"plugin": ["a", "b c.py"]}}}')
    says = r"^unknown policy 'x'; .* pass --plugin a --plugin 'b c.py'$"
    with pytest.raises(TransferError, match=says), name_recorded_plugins(folder / "nowhere", folder):
        raise UnknownName("unknown policy 'x'")


def test_a_file_named_as_a_loaded_module_does_not_replace_it(folder: Path) -> None:
    (folder / "logging.py").write_text("MINE = True\n")
    assert load_plugin("logging.py").MINE
    assert sys.modules["logging"] is logging


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("my_plugim", r"^--plugin my_plugim: no such module in .* \(did you mean 'my_plugin'\?\)"),
        ("missing.py", r"^--plugin missing\.py: no such file"),
        ("my_plugin.inner", r"^--plugin my_plugin\.inner: "),
        ("broken", r"^--plugin broken: its import failed: ZeroDivisionError: .* \(.*broken\.py, line 2\)"),
        ("broken.py", r"^--plugin broken\.py: its import failed: ZeroDivisionError: .*broken\.py, line 2"),
        ("unwritten", r"^--plugin unwritten: its import failed: ModuleNotFoundError: No module named 'nowhere'"),
        ("wrong", r"^--plugin wrong: its import failed: SyntaxError: .*wrong\.py, line 1"),
        ("..up", r"^--plugin \.\.up: "),
        ("", r"^--plugin : "),
    ],
)
def test_a_plugin_that_cannot_be_loaded_is_one_line(folder: Path, name: str, says: str) -> None:
    (folder / "my_plugin.py").touch()
    (folder / "broken.py").write_text("\n1 / 0\n")
    (folder / "unwritten.py").write_text("import nowhere\n")
    (folder / "wrong.py").write_text("def\n")
    with pytest.raises(TransferError, match=says):
        load_plugin(name)
    assert "broken" not in sys.modules


class Point:
    """An entry point as importlib.metadata gives it."""

    def __init__(self, name: str, error: Exception | None = None) -> None:
        self.name, self.value, self.error, self.loads = name, f"package_of_{name}", error, 0

    def load(self) -> None:
        self.loads += 1
        if self.error:
            raise self.error


def test_entry_points_are_loaded_once_and_a_broken_one_is_named(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    broken, fine = Point("broken", ValueError("no torch")), Point("fine")
    monkeypatch.setattr(metadata, "entry_points", lambda *, group: {"transfer.plugins": [broken, fine]}[group])
    monkeypatch.setattr(plugins, "_entry_points_loaded", False)
    for _ in range(2):
        load_entry_points()
    assert (broken.loads, fine.loads) == (1, 1)
    (message,) = caplog.messages
    assert message.startswith("installed plugin broken (package_of_broken) is left out: ValueError: no torch (")
