"""Names from elsewhere, made fit for a terminal and for UTF-8."""

import re

# Control characters, which a terminal obeys; marks that turn the direction of writing; halves of a character, by which
# Python stands for bytes of a file name that are no text.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def escape_unprintable(text: str, keep: str = "") -> str:
    r"""Return `text` with each character that is unfit to be printed, but those of `keep`, as JSON escapes it.

    What JSON says is the same before and after.

    Examples
    --------
    >>> print(escape_unprintable("a \x1b[31mred\nmug"))
    a \u001b[31mred\u000amug
    """
    return _UNPRINTABLE.sub(lambda found: found[0] if found[0] in keep else f"\\u{ord(found[0]):04x}", text)
