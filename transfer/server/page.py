"""Pages from templates, with a policy that lets them load nothing from elsewhere; and pictures for them."""

import io
import json
import secrets
from typing import Any

from fastapi.responses import HTMLResponse, JSONResponse
from jinja2 import ChoiceLoader, Environment, PackageLoader
from PIL import Image


class JsonAnswer(JSONResponse):
    r"""JSON in UTF-8; names of files and classes that are no text have their bytes escaped, as ``\udcff``."""

    def render(self, content: Any) -> bytes:
        """Return the body."""
        try:
            return super().render(content)
        except UnicodeEncodeError:
            return json.dumps(content, allow_nan=False, separators=(",", ":")).encode()


def answer_page(template: str, **values: Any) -> HTMLResponse:
    """Return the page that `template` makes of `values`; scripts and styles in it need ``nonce="{{ nonce }}"``."""
    nonce = secrets.token_urlsafe(16)
    rooms = [PackageLoader(room, "templates") for room in ("transfer.server", "transfer.report")]  # style.css is there
    templates = Environment(loader=ChoiceLoader(rooms), autoescape=True)
    text = templates.get_template(template).render(nonce=nonce, **values)
    own = f"'nonce-{nonce}'"
    policy = f"default-src 'none'; img-src 'self' data: blob:; connect-src 'self'; style-src {own}; script-src {own}"
    closed = "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    headers = {"Content-Security-Policy": f"{policy}; {closed}"}
    headers |= {"Referrer-Policy": "no-referrer", "X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}
    return HTMLResponse(text.encode("utf-8", "replace"), headers=headers)  # a name may be no text


def encode_small(image: Image.Image, side: int) -> bytes:
    """Return an RGB image as a JPEG whose longer side has `side` pixels at most."""
    image.thumbnail((side, side))
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=86)
    return stream.getvalue()
