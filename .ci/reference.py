"""Reference pages of every public module, from the docstrings: ``python -m reference FOLDER``."""

import importlib
import pkgutil
import sys
from pathlib import Path
from types import ModuleType

from transfer import __version__
from transfer.errors import TransferError


def modules(package: str = "transfer") -> list[ModuleType]:
    """Import all public modules of `package`, with their lazily loaded names, and return them.

    Each package's ``__all__`` is extended by its modules, because pdoc shows no others.
    """
    found = [importlib.import_module(package)]
    for info in pkgutil.walk_packages(found[0].__path__, f"{package}."):
        if not info.name.rpartition(".")[2].startswith("_"):
            found.append(importlib.import_module(info.name))
    for module in found:
        if hasattr(module, "__path__") and hasattr(module, "__all__"):
            exported: list[str] = module.__all__
            for name in exported:
                vars(module).setdefault(name, getattr(module, name))
            inside = (name.rpartition(".") for name in (other.__name__ for other in found))
            names = [name for parent, _, name in inside if parent == module.__name__]
            vars(module)["__all__"] = list(dict.fromkeys([*exported, *names]))
    return found


def write(folder: Path, package: str = "transfer") -> Path:
    """Write a page for each module of `package` into `folder`; return the index page.

    Raises
    ------
    TransferError
        pdoc is not installed.
    """
    try:
        import pdoc
    except ImportError as error:
        raise TransferError('reference pages need pdoc: pip install "transfer-toolkit[dev]"') from error
    modules(package)
    pdoc.render.configure(docformat="numpy", show_source=False, footer_text=f"transfer {__version__}")
    pdoc.pdoc(package, output_directory=folder)
    return folder / "index.html"


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m reference FOLDER")
    print(write(Path(sys.argv[1])))
