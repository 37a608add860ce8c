import io
from dataclasses import replace

import pytest
from PIL import Image

pytest.importorskip("fastapi", reason="needs the extra 'server'")

from fastapi.testclient import TestClient

from transfer.server.app import create_app

TOKEN = "0123456789abcdef"


@pytest.fixture
def client(review):
    return TestClient(create_app(review, TOKEN), base_url="http://127.0.0.1:8000")


def test_the_page_loads_nothing_from_elsewhere(client):
    answer = client.get(f"/{TOKEN}/")
    assert answer.status_code == 200
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert "http" not in answer.text
    nonces = {part.partition('"')[0] for part in answer.text.split('nonce="')[1:]}
    assert len(nonces) == 1
    assert f"'nonce-{nonces.pop()}'" in policy
    assert client.get(f"/{TOKEN}/").text != answer.text  # a new nonce each time


@pytest.mark.parametrize("address", ["/", "/docs", "/openapi.json", "/wrong/", "/wrong/state", f"/{TOKEN}x/state"])
def test_without_the_token_there_is_nothing(client, address):
    assert client.get(address).status_code == 404


def test_without_the_token_nothing_is_decided(client, review):
    assert client.post("/wrong/decide", json={"row": 0, "action": "exclude", "seen": 0}).status_code == 404
    assert review.file.read() == []


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example"])
def test_other_host_names_are_refused(client, host):
    assert client.get(f"/{TOKEN}/state", headers={"Host": host}).status_code == 400


def test_pictures_are_given_by_row_number_only(client, review):
    answer = client.get(f"/{TOKEN}/picture/5")
    assert answer.headers["content-type"] == "image/jpeg"
    assert Image.open(io.BytesIO(answer.content)).size == (32, 32)
    for row in ("48", "-1", "..%2F..%2Fetc%2Fpasswd", "../../etc/passwd", "5.png"):
        assert client.get(f"/{TOKEN}/picture/{row}").status_code in (404, 422)


def test_a_picture_that_is_gone_is_an_error_in_one_line(client, review, monkeypatch):
    paths = review.data.table.paths.copy()
    paths[5] = "/gone.png"
    monkeypatch.setattr(review, "data", replace(review.data, table=replace(review.data.table, paths=paths)))
    answer = client.get(f"/{TOKEN}/picture/5")
    assert answer.status_code == 400
    assert "gone.png" in answer.json()["error"]


def test_decisions_go_to_the_file_and_come_back(client, review):
    row = review.queue[0]
    answer = client.post(f"/{TOKEN}/decide", json={"row": row, "action": "relabel", "new": "red", "seen": 0})
    assert answer.status_code == 200
    assert (answer.json()["label"], answer.json()["seen"]) == ("red", 1)
    assert [(each.path, each.new) for each in review.file.read()] == [(review.paths[row], "red")]
    state = client.get(f"/{TOKEN}/state").json()
    assert state["decided"] == 1
    assert state["items"][0]["decision"] == "relabel"


def test_a_tab_that_is_behind_is_told_so_and_changes_nothing(client, review):
    send = {"row": 3, "action": "exclude", "seen": 0}
    assert client.post(f"/{TOKEN}/decide", json=send).status_code == 200
    answer = client.post(f"/{TOKEN}/decide", json=send | {"action": "accept"})
    assert answer.status_code == 409
    assert (answer.json()["decision"], answer.json()["seen"]) == ("exclude", 1)
    assert len(review.file.read()) == 1


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"row": 99}, 400),
        ({"row": "x"}, 422),
        ({"action": "delete"}, 422),
        ({"action": "relabel", "new": ""}, 400),
        ({"action": "relabel", "new": "x" * 201}, 422),
        ({"seen": None}, 422),
    ],
)
def test_decisions_that_make_no_sense_are_refused(client, review, change, status):
    send = {"row": 3, "action": "accept", "seen": 0} | change
    assert client.post(f"/{TOKEN}/decide", json=send).status_code == status
    assert review.file.read() == []


def test_a_form_of_another_page_decides_nothing(client, review):
    form = client.post(
        f"/{TOKEN}/decide", content='{"row": 3, "action": "exclude", "seen": 0}', headers={"Content-Type": "text/plain"}
    )
    assert form.status_code == 422
    assert review.file.read() == []


def test_a_round_is_ranked_anew(client, review):
    for row in list(review.queue):
        client.post(f"/{TOKEN}/decide", json={"row": row, "action": "accept", "seen": 0})
    before = set(review.queue)
    answer = client.post(f"/{TOKEN}/rank").json()
    assert answer["round"] == 2
    assert not before & {item["row"] for item in answer["items"]}


def test_classes_whose_names_are_no_text_are_shown(client, review, monkeypatch):
    monkeypatch.setattr(review, "given", ["gr\udcffn" if name == "green" else name for name in review.given])
    answer = client.get(f"/{TOKEN}/state")
    assert answer.status_code == 200
    assert "gr\udcffn" in answer.json()["classes"]
