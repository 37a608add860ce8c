"""Reference pages of every public module, from the docstrings: ``python -m reference FOLDER``."""

import importlib
import pkgutil
import sys
from pathlib import Path
from types import ModuleType

from transfer import __version__
from transfer.errors import TransferError


def modules(package: str = "transfer") -> list[ModuleType]:
    """Return all modules of `package` without a leading underscore, what they load lazily loaded.

    Each package then also names its modules among what it exports, as pdoc shows nothing else.
    """
    found = [importlib.import_module(package)]
    for info in pkgutil.walk_packages(found[0].__path__, f"{package}."):
        if not info.name.rpartition(".")[2].startswith("_"):
            found.append(importlib.import_module(info.name))
    for module in found:
        if hasattr(module, "__path__") and hasattr(module, "__all__"):
            said: list[str] = module.__all__
            for name in said:
                vars(module).setdefault(name, getattr(module, name))
            inside = (name.rpartition(".") for name in (other.__name__ for other in found))
            names = [name for parent, _, name in inside if parent == module.__name__]
            vars(module)["__all__"] = list(dict.fromkeys([*said, *names]))
    return found


def write(folder: Path, package: str = "transfer") -> Path:
    """Write a page for each module of `package` into `folder`; return the first one to open.

    Raises
    ------
    TransferError
        pdoc is not installed.
    """
    try:
        import pdoc
    except ImportError as error:
        raise TransferError('reference pages are made by pdoc: pip install "transfer[dev]"') from error
    modules(package)
    pdoc.render.configure(docformat="numpy", show_source=False, footer_text=f"transfer {__version__}")
    pdoc.pdoc(package, output_directory=folder)
    return folder / "index.html"


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m reference FOLDER")
    print(write(Path(sys.argv[1])))
