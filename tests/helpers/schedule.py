"""How xdist shares out the tests: file by file, but where that would repeat work or leave a process idle."""

from typing import Any

import pytest

TOGETHER = ("tests/runtime/distributed/",)
"""Folders whose files share a fixture that takes a minute: it is built in one process alone."""
ALONE = ("tests/notebooks/test_notebooks.py", "tests/recipes/test_recipes.py")
"""Files whose tests share nothing and take seconds each: any process takes the next one."""


def find_scope(nodeid: str) -> str:
    """Return the name of the unit that is given to one process."""
    file = nodeid.partition("::")[0]
    if file in ALONE:
        return nodeid
    return next((folder for folder in TOGETHER if file.startswith(folder)), file)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Let ``--dist=loadfile`` share out the units of `find_scope`."""
    from xdist.scheduler import LoadFileScheduling

    class UnitScheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return find_scope(nodeid)

    return UnitScheduling(config, log) if config.getoption("dist") == "loadfile" else None
