"""User modules that register policies, heads, methods or backbones: by name, by file, or by entry point.

A plugin needs nothing but its import: its top level calls ``transfer.register_policy`` and the like. Nothing here runs
code that the user has not named with ``--plugin`` or installed as a package with an entry point of the group
``transfer.plugins``.
"""

import importlib
import importlib.util
import logging
import shlex
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from types import ModuleType

from transfer.errors import TransferError, UnknownName, did_you_mean
from transfer.runtime.files import read_json

GROUP = "transfer.plugins"  # of entry points, in a package's pyproject.toml

log = logging.getLogger(__name__)

_files: dict[Path, ModuleType] = {}  # loaded from a path, so that no file registers its classes twice
_entry_points_loaded = False


def load_plugin(name_or_path: str) -> ModuleType:
    """Import a plugin once and return its module.

    Parameters
    ----------
    name_or_path : str
        A module's name, found in the working directory or among installed packages, or the path of a ``.py`` file.

    Raises
    ------
    TransferError
        There is no such module or file, or its import fails.
    """
    if name_or_path.endswith(".py"):
        return _load_file(Path(name_or_path), name_or_path)
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.append(folder)  # last, so that no file there replaces an installed module
    importlib.invalidate_caches()
    try:
        return importlib.import_module(name_or_path)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name_or_path}.".startswith(f"{error.name}."):
            raise _failed(name_or_path, error) from error
        near = did_you_mean(name_or_path, (path.stem for path in Path(folder).glob("*.py")))
        raise TransferError(
            f"--plugin {name_or_path}: no such module in {folder} or among installed packages{near}; "
            "give a module's name or the path of a .py file"
        ) from error
    except Exception as error:
        raise _failed(name_or_path, error) from error


@contextmanager
def name_recorded_plugins(*folders: Path) -> Iterator[None]:
    """Add the plugins recorded in the config.json of run `folders` to an error about a name that is not registered."""
    try:
        yield
    except UnknownName as error:
        for folder in folders:
            if plugins := _read_recorded(folder):
                options = " ".join(f"--plugin {shlex.quote(plugin)}" for plugin in plugins)
                raise TransferError(
                    f"{error}; the run in {folder} was started with a plugin: pass {options}"
                ) from error
        raise


def _read_recorded(folder: Path) -> list[str]:
    try:
        config = read_json(folder / "config.json")
        return [str(plugin) for plugin in (config.get("train") or config)["run"]["plugin"]]
    except (TransferError, AttributeError, KeyError, TypeError):  # no run, an old one, or a damaged file
        return []


def load_entry_points() -> None:
    """Import the plugins of installed packages, once per process; one that fails is named in a warning."""
    global _entry_points_loaded
    if _entry_points_loaded:
        return
    _entry_points_loaded = True
    for point in metadata.entry_points(group=GROUP):
        try:
            point.load()
        except Exception as error:
            log.warning("installed plugin %s (%s) is left out: %s", point.name, point.value, _describe(error))


def check_methods(what: str, cls: type) -> None:
    """Raise if a class that is to be registered lacks methods that its base class declares abstract."""
    if missing := sorted(getattr(cls, "__abstractmethods__", ())):
        raise TransferError(f"{what}: define {' and '.join(f'{name}()' for name in missing)}")


def _load_file(path: Path, name: str) -> ModuleType:
    path = path.expanduser().resolve()
    if path in _files:
        return _files[path]
    if not path.is_file():
        raise TransferError(f"--plugin {name}: no such file; give a module's name or the path of a .py file")
    module_name = path.stem if path.stem not in sys.modules else f"transfer_plugin_{path.stem}_{len(_files)}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[module_name]
        raise _failed(name, error) from error
    _files[path] = module
    return module


def _failed(name: str, error: Exception) -> TransferError:
    return TransferError(f"--plugin {name}: its import failed: {_describe(error)}")


def _describe(error: Exception) -> str:
    """Return the error's type and text, and the file and line that raised it."""
    if isinstance(error, SyntaxError):
        return f"{type(error).__name__}: {error}"  # which names file and line
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "importlib" not in frame.filename]
    place = next((f" ({frame.filename}, line {frame.lineno})" for frame in reversed(frames)), "")
    return f"{type(error).__name__}: {error}{place}"
