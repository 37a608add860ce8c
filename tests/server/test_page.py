import io
import json

import pytest
from PIL import Image

pytest.importorskip("fastapi", reason="needs the extra 'server'")

from transfer.server.page import JsonAnswer, answer_page, encode_small

HOSTILE = "</title><script>alert(1)</script>"


def test_a_page_may_load_nothing_from_elsewhere_and_escapes_names():
    answer = answer_page("serve.html", runs=[HOSTILE])
    policy, text = answer.headers["content-security-policy"], answer.body.decode()
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in text.replace("http-equiv", "")
    assert HOSTILE not in text
    assert "&lt;script&gt;" in text
    nonces = {part.partition('"')[0] for part in text.split('nonce="')[1:]}
    assert len(nonces) == 1
    assert f"'nonce-{nonces.pop()}'" in policy
    assert answer_page("serve.html", runs=["a"]).body != answer_page("serve.html", runs=["a"]).body


def test_names_that_are_no_text_are_shown_and_read_back():
    assert b"b?" in answer_page("serve.html", runs=["b\udcff"]).body
    assert json.loads(JsonAnswer({"object": "b\udcff", "domain": "ü"}).body) == {"object": "b\udcff", "domain": "ü"}
    assert JsonAnswer({"domain": "ü"}).body == '{"domain":"ü"}'.encode()


def test_pages_share_the_look_of_reports():
    text = answer_page("serve.html", runs=["a"]).body.decode()
    assert "--orange" in text
    assert "prefers-color-scheme: dark" in text


def test_small_pictures_have_their_longer_side():
    content = encode_small(Image.new("RGB", (400, 100)), 80)
    assert Image.open(io.BytesIO(content)).size == (80, 20)
