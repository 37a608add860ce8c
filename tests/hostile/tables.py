"""Hostile CSV manifests."""

from .cases import CASES, Workspace, train_argv


def table_case(name: str, content: bytes | str, code: int, message: str) -> None:
    """Add a case: a manifest beside valid images."""

    def build_argv(workspace: Workspace) -> list[str]:
        workspace.data()
        raw = content if isinstance(content, bytes) else content.encode()
        (workspace.root / "data" / "m.csv").write_bytes(raw)
        return train_argv(workspace.root / "data" / "m.csv")

    CASES[name] = build_argv, code, message


ROWS = "".join(f"{name}/{i}.png,{name}\n" for name in ("dark", "light") for i in range(5))
VALID = "path,object\n" + ROWS
table_case("a table with a byte order mark", "\ufeff" + VALID, 0, "accuracy")
table_case("a table with NUL bytes", VALID.replace("dark\n", "dark\0\0\n"), 0, "accuracy")
table_case("a path with a NUL byte", VALID.replace("0.png", "0.png\0"), 2, "line 2: no file")
table_case("a table in UTF-16", VALID.encode("utf-16"), 0, "accuracy")
table_case("a table in Latin-1", VALID.replace("dark\n", "dörk\n").encode("latin-1"), 0, "accuracy")
table_case("a field of a megabyte", VALID.replace("dark\n", "d" * 2**20 + "\n"), 2, "field larger than field limit")
table_case("a class of 5,000 digits", VALID.replace("dark\n", "9" * 5000 + "\n"), 0, "accuracy")
table_case("the same column twice", VALID.replace("object\n", "object,Object\n"), 2, "more than once")
table_case(
    "the same column twice, filled",
    VALID.replace("\n", ",x\n").replace("object,x", "object,OBJECT"),
    2,
    "more than once",
)
table_case("an open quote", VALID + '"dark/0.png', 2, "unexpected end of data")
table_case("a path that is a device", "path,object\n/dev/zero,a\n/dev/tty,b\n", 2, "no file /dev/zero")
table_case("a path of a million letters", f"path,object\n{'x' * 100_000},a\n", 2, "no file")
table_case("escape sequences in a path", "path,object\n\x1b]0;owned\x07.png,a\n", 2, "no file")
table_case(
    "classes with formulas and markup",
    VALID.replace("dark\n", "\"=cmd|'/c calc'!A1\"\n").replace("light\n", "<script>/../</script>\n"),
    0,
    "accuracy",
)
table_case("zero bytes of a table", b"", 2, "no column 'path'")
