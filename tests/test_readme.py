"""Every Markdown file: links, images and anchors resolve, and named files exist."""

import ast
import importlib
import re
import subprocess
from functools import cache
from pathlib import Path
from urllib.parse import unquote

import pytest
from commands import run_script

from transfer.adaptation.registry import method_summaries
from transfer.freeze.policy import summarise_policies
from transfer.heads.registry import head_summaries

ROOT = Path(__file__).parents[1]
FIXTURES = ROOT / "tests" / "fixtures"  # saved runs, whose model cards stay as they were written
CODE_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INLINE_CODE = re.compile(r"`[^`]*`")
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
FILE_NAME = re.compile(r"(?<![\w./-])((?:transfer|recipes|tests|notebooks|\.ci)/[\w./-]+)")


@cache
def markdown_files() -> tuple[Path, ...]:
    """All Markdown files of the repository; without git, of the folders that have some."""
    listed = subprocess.run(["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode == 0 and listed.stdout.strip():
        paths = [ROOT / line for line in listed.stdout.splitlines()]
    else:
        paths = [ROOT / "README.md", *(p for f in ("transfer", "recipes", "tests") for p in (ROOT / f).rglob("*.md"))]
    return tuple(sorted(path for path in paths if FIXTURES not in path.parents))


def by_name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def anchors(path: Path) -> frozenset[str]:
    """The anchors that GitHub makes of a file's headings; a repeated heading gets -1, -2 and so on."""
    found: dict[str, int] = {}
    for heading in re.findall(r"^#{1,6} +(.+?) *#*$", CODE_BLOCK.sub("", path.read_text(encoding="utf-8")), re.M):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").lower()
        slug = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        found[slug] = found.get(slug, -1) + 1
    return frozenset(slug + (f"-{i}" if i else "") for slug, last in found.items() for i in range(last + 1))


def broken_links(path: Path, text: str) -> list[str]:
    broken = []
    for target in LINK.findall(INLINE_CODE.sub("", CODE_BLOCK.sub("", text))):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = unquote(target).partition("#")
        found = (path.parent / file).resolve() if file else path
        within_heading = not anchor or (found.suffix == ".md" and found.is_file() and anchor in anchors(found))
        if not found.exists() or not within_heading:
            broken.append(target)
    return broken


def missing_files(text: str) -> list[str]:
    """Paths that `text` names, as `transfer/data/table.py`, and that are not there."""
    text = re.sub(r"\w+://\S+", "", text)
    names = {name.rstrip(".-/") for name in FILE_NAME.findall(text) if "NAME" not in name}
    return sorted(name for name in names if not (ROOT / name).exists())


@pytest.mark.parametrize("path", markdown_files(), ids=by_name)
def test_links_and_anchors_resolve(path):
    assert broken_links(path, path.read_text(encoding="utf-8")) == []


def test_a_broken_link_would_be_found():
    text = "[a](no.md) ![b](no.png) [c](#nowhere) [d](README.md#no) `[e](no.md)` [f](https://a.b/c) [g](#policies)"
    assert broken_links(ROOT / "README.md", text) == ["no.md", "no.png", "#nowhere", "README.md#no"]


@pytest.mark.parametrize("path", markdown_files(), ids=by_name)
def test_named_files_exist(path):
    assert missing_files(path.read_text(encoding="utf-8")) == []


def test_a_missing_file_would_be_found():
    assert missing_files("`transfer/no.py`, tests/test_readme.py; runs/tests/x, `transfer/`") == ["transfer/no.py"]


def test_front_page_or_package_page_links_to_every_readme():
    pages = (ROOT / "README.md", ROOT / "transfer" / "README.md")
    linked = {
        (page.parent / target.partition("#")[0]).resolve()
        for page in pages
        for target in LINK.findall(page.read_text(encoding="utf-8"))
    }
    rooms = {path for path in markdown_files() if path.name == "README.md"} - {ROOT / "README.md"}
    card = ROOT / "transfer" / "backbones" / "providers" / "glyphnet" / "README.md"  # linked from its room
    assert rooms - {card} <= linked


@pytest.mark.parametrize("path", markdown_files(), ids=by_name)
def test_snippets_import_names_that_exist(path):
    """Python blocks parse, and every name that they import from this package exists."""
    for language, code in CODE_BLOCK.findall(path.read_text(encoding="utf-8")):
        if language != "python":
            continue
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "transfer":
                module = importlib.import_module(node.module)
                assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []


def named_in_table(path, head):
    """Names in backticks in the first column of the table whose first header is `head`."""
    lines = iter(path.read_text(encoding="utf-8").splitlines())
    next(line for line in lines if line.startswith(f"| {head} |"))
    names = []
    for line in lines:
        if not line.startswith("|"):
            break
        names += re.findall(r"`([^`]+)`", line.replace(r"\|", "/").split("|")[1])
    return {name.replace("/", "|") for name in names}


def test_tables_of_policies_kinds_and_methods_are_those_of_the_registries():
    root = Path(__file__).parents[1]
    assert named_in_table(root / "README.md", "policy") == set(summarise_policies())
    assert named_in_table(root / "transfer" / "heads" / "README.md", "kind") == set(head_summaries())
    methods = named_in_table(root / "transfer" / "adaptation" / "README.md", "`--method`, one or several")
    assert methods == set(method_summaries())


def test_the_four_extensions_register(tmp_path):
    """The four snippets of "Extending it" run, in a process of their own."""
    section = (ROOT / "transfer" / "README.md").read_text(encoding="utf-8").split("## Extending it")[1]
    blocks = [code for language, code in CODE_BLOCK.findall(section) if language == "python"]
    assert len(blocks) == 4
    code = "\n".join(blocks)
    code += "\nfrom transfer.adaptation.registry import method_summaries as methods"
    code += "\nfrom transfer.backbones.registry import resolve"
    code += "\nfrom transfer.freeze.policy import summarise_policies as policies"
    code += "\nfrom transfer.heads.registry import head_summaries as heads"
    code += (
        "\nassert 'mean_gap' in methods() and 'every_second' in policies() and 'count' in heads() and resolve('my_net')"
    )
    script = tmp_path / "extensions.py"
    script.write_text(code, encoding="utf-8")
    done = run_script(ROOT, script)
    assert done.returncode == 0, done.stderr
