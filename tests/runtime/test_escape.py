import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transfer.runtime.escape import escape_unprintable

ANY = st.text(st.characters())  # halves of characters included


@given(ANY)
def test_nothing_is_left_that_a_terminal_obeys_or_that_is_no_utf8(text: str) -> None:
    said = escape_unprintable(text)
    said.encode("utf-8")
    assert not any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in said)
    assert not any(
        unicodedata.bidirectional(c) in ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "PDI") for c in said
    )


@given(st.recursive(ANY, lambda inner: st.lists(inner) | st.dictionaries(ANY, inner), max_leaves=5))
def test_json_says_the_same(value: object) -> None:
    assert json.loads(escape_unprintable(json.dumps(value, ensure_ascii=False))) == value


@pytest.mark.parametrize(
    "text", ["größe", "\u0645\u0631\u062d\u0628\u0627", "👩\u200d🚀", "می\u200cخواهم", "e\u0301", "a b\\n"]
)
def test_what_people_write_stays(text: str) -> None:
    assert escape_unprintable(text) == text


def test_what_is_kept() -> None:
    assert escape_unprintable("a\nb\x1bc", keep="\n") == "a\nb\\u001bc"
