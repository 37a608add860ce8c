"""Escapes for text from elsewhere, such as file names, before it is printed or written as UTF-8."""

import re

# Control characters; marks of writing direction; lone surrogates, by which Python represents the bytes of a file name
# that are not valid text.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def escape_unprintable(text: str, keep: str = "") -> str:
    r"""Return `text` with unprintable characters, except those in `keep`, escaped as in JSON.

    Escaped JSON decodes to the same value.

    Examples
    --------
    >>> print(escape_unprintable("a \x1b[31mred\nmug"))
    a \u001b[31mred\u000amug
    """
    return _UNPRINTABLE.sub(lambda found: found[0] if found[0] in keep else f"\\u{ord(found[0]):04x}", text)
