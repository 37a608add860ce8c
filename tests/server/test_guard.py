import pytest

pytest.importorskip("fastapi", reason="needs the extra 'server'")

from fastapi import FastAPI
from fastapi.testclient import TestClient

from transfer.server.counters import ServerMetrics
from transfer.server.guard import RequestGuard

TOKEN = "0123456789abcdefghij"
HERE = "http://127.0.0.1:8000"


@pytest.fixture
def metrics():
    return ServerMetrics()


def make_client(metrics, host="127.0.0.1", token="", base_url=HERE):
    app = FastAPI()

    @app.get("/")
    @app.get("/health")
    @app.post("/change")
    def answer() -> str:
        return "answered"

    app.add_middleware(RequestGuard, host=host, token=token, metrics=metrics, paths=lambda path: path)
    return TestClient(app, base_url=base_url, follow_redirects=False)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:8000", "localhost:9", "[::1]:8000", "LOCALHOST"])
def test_addresses_of_this_machine_are_served(metrics, host):
    assert make_client(metrics).get("/", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "192.168.0.7:8000", "", "[::1]x"]
)
def test_other_addresses_are_refused(metrics, host):
    answer = make_client(metrics).get("/", headers={"Host": host})
    assert (answer.status_code, answer.json()["code"]) == (421, "wrong_host")


@pytest.mark.parametrize(
    ("host", "status"),
    [("192.168.0.7:8000", 200), ("[fe80::1]:8000", 200), ("studio.example:8000", 200), ("evil.example:8000", 421)],
)
def test_in_a_network_names_of_others_are_refused(metrics, host, status):
    client = make_client(metrics, host="studio.example", token=TOKEN)
    assert client.get("/health", headers={"Host": host}).status_code == status


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Origin": HERE}, 200),
        ({"Origin": HERE, "Sec-Fetch-Site": "same-origin"}, 200),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "http://127.0.0.1:9999"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
    ],
)
def test_other_pages_change_nothing(metrics, headers, status):
    assert make_client(metrics).post("/change", headers=headers).status_code == status


def test_there_are_no_cors_headers_and_answers_stay_here(metrics):
    client = make_client(metrics)
    answer = client.get("/", headers={"Origin": "http://evil.example"})
    assert not [name for name in answer.headers if name.startswith("access-control")]
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"
    assert client.options("/change", headers={"Origin": "http://evil.example"}).status_code == 403


def test_a_token_comes_by_header_or_cookie(metrics):
    client = make_client(metrics, token=TOKEN)
    assert client.get("/health").status_code == 200
    for headers in ({}, {"Authorization": f"Bearer {TOKEN}x"}, {"Authorization": "Bearer "}, {"Cookie": "a=é; ;="}):
        answer = client.get("/", headers={k: v.encode() for k, v in headers.items()})
        assert (answer.status_code, answer.json()["code"]) == (401, "no_token")
    assert client.get("/", headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200
    assert client.get(f"/?token={TOKEN}x").status_code == 401
    assert client.get(f"/change?token={TOKEN}").status_code == 401
    answer = client.get(f"/?token={TOKEN}")
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "strict" in cookie.lower()
    assert client.get("/").status_code == 200  # the client keeps the cookie
    assert client.post("/change").status_code == 200


def test_requests_are_counted(metrics):
    client = make_client(metrics)
    client.get("/")
    client.get("/", headers={"Host": "evil.example"})
    text = metrics.format_text(0, 1)
    assert 'transfer_requests_total{path="/",status="200"} 1' in text
    assert 'transfer_requests_total{path="/",status="421"} 1' in text
