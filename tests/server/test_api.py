import threading
import tracemalloc
from pathlib import Path
from shutil import copytree, rmtree

import pytest

pytest.importorskip("fastapi", reason="needs the extra 'server'")

from fastapi.testclient import TestClient
from upload_files import HOSTILE, encode, make_form

from transfer.server.api import create_api

TOKEN = "0123456789abcdefghij"


@pytest.fixture(scope="module")
def open_client():
    opened = []

    def start(service, token=""):
        client = TestClient(create_api(service, token), base_url="http://127.0.0.1:8000", raise_server_exceptions=False)
        client.__enter__()
        opened.append(client)
        return client

    yield start
    for client in opened:
        client.__exit__(None, None, None)


@pytest.fixture(scope="module")
def shared_folder(served_folder, tmp_path_factory):
    return copytree(served_folder, tmp_path_factory.mktemp("shared") / "run")


@pytest.fixture(scope="module")
def service(make_service, shared_folder):
    return make_service(shared_folder)


@pytest.fixture(scope="module")
def client(open_client, service):
    return open_client(service)


def code_of(answer):
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["error"]
    return answer.status_code, answer.json()["code"]


def test_an_image_is_predicted_from_its_bytes_or_a_form(client):
    content = encode("green")
    answer = client.post("/predict?name=..%2Fa.png&top=2", content=content)
    assert answer.status_code == 200
    found = answer.json()
    assert found["name"] == "a.png"
    assert found["prediction"]["object"] == "green"
    assert len(found["prediction"]["object_top"]) == 2
    assert found["prediction"]["object_set"][0] == "green"
    body, headers = make_form([("b.png", content)])
    other = client.post("/predict?top=2", content=body, headers=headers).json()
    assert other == found | {"name": "b.png"}


def test_a_batch_is_answered_in_order_with_an_error_for_each_bad_image(client):
    colours = ["red", "green", "blue", "red"]
    files = [(f"{i}.png", encode(colour, seed=i)) for i, colour in enumerate(colours)]
    files[2:2] = [("../../bad.png", HOSTILE["cut PNG"]), ("text.jpg", HOSTILE["text"])]
    body, headers = make_form(files)
    answer = client.post("/predict_batch", content=body, headers=headers)
    assert answer.status_code == 200
    results = answer.json()["results"]
    assert [each["name"] for each in results] == ["0.png", "1.png", "bad.png", "text.jpg", "2.png", "3.png"]
    assert [each.get("code") for each in results] == [None, None, "bad_image", "wrong_type", None, None]
    assert [each["prediction"]["object"] for each in results if "prediction" in each] == colours


def test_explanation_and_neighbours_come_on_request(client, service):
    while service.indexes[0].describe()["state"] == "loading":
        pass
    found = client.post("/predict?explain=true&neighbours=true", content=encode("blue")).json()
    heat = found["explanation"]["heat"]
    assert found["explanation"]["label"] == "blue"
    assert 0 <= min(map(min, heat)) <= max(map(max, heat)) <= 1
    assert len(found["explanation"]["view"]) == 4
    nearest = found["neighbours"]["nearest"]
    assert len(nearest) == 3
    assert nearest[0]["labels"]["object"] == "blue"
    assert found["neighbours"]["next"]["label"] == found["prediction"]["object_top"][1][0]
    assert {each["labels"]["object"] for each in found["neighbours"]["next"]["nearest"]} == {
        found["neighbours"]["next"]["label"]
    }
    picture = client.get(f"/training/0/{nearest[0]['row']}")
    assert picture.headers["content-type"] == "image/jpeg"
    assert code_of(client.get("/training/0/9999")) == (404, "no_image")
    assert code_of(client.get("/training/0/..%2F..%2Fetc")) in ((404, "no_address"), (400, "bad_request"))
    other = client.post("/predict?explain=true&label=red", content=encode("blue")).json()
    assert other["explanation"]["label"] == "red"
    assert code_of(client.post("/predict?explain=true&label=mug", content=encode("blue"))) == (400, "no_class")


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_no_image_is_an_error_in_json(client, name):
    for address in ("/predict", "/corrections?label=red", "/picture"):
        answer = client.post(address, content=HOSTILE[name])
        status, _ = code_of(answer)
        assert status in (400, 413, 415, 422)
        assert "/home" not in answer.text
        assert "Traceback" not in answer.text


@pytest.mark.parametrize(
    ("method", "address", "expected"),
    [
        ("POST", "/predict?run=1", (404, "no_run")),
        ("POST", "/predict?run=-1", (404, "no_run")),
        ("POST", "/predict?run=x", (400, "bad_request")),
        ("POST", "/predict?top=0", (400, "bad_request")),
        ("POST", "/predict_batch", (415, "wrong_type")),
        ("POST", "/corrections", (400, "bad_request")),
        ("POST", "/corrections?label=%20", (400, "bad_request")),
        ("POST", "/corrections?label=a%00b", (400, "bad_request")),
        ("POST", f"/corrections?label={'x' * 201}", (400, "bad_request")),
        ("POST", "/corrections/abc/undo", (400, "bad_request")),
        ("GET", "/corrections/..%2F..%2Flabels.csv", (404, "no_address")),
        ("GET", "/predict", (405, "no_address")),
        ("GET", "/nothing", (404, "no_address")),
    ],
)
def test_wrong_requests_are_errors_in_json(client, method, address, expected):
    content = encode("red") if method == "POST" else None
    assert code_of(client.request(method, address, content=content)) == expected


def test_limits_of_size_and_count(open_client, make_service, run_folder):
    client = open_client(make_service(run_folder, limits={"max_images": 5, "max_megabytes": 0.01, "queue": 5}))
    assert code_of(client.post("/predict", content=bytes(10_001))) == (413, "too_large")
    assert code_of(client.post("/predict", content=iter([bytes(9_000), bytes(9_000)]))) == (413, "too_large")
    body, headers = make_form([(f"{i}", b"x") for i in range(6)])
    assert code_of(client.post("/predict_batch", content=body, headers=headers)) == (413, "too_many")
    body, headers = make_form([("a", b"x" * 11_000)])
    assert client.post("/predict_batch", content=body, headers=headers).json()["results"][0]["code"] == "too_large"
    body, headers = make_form([(f"{i}", b"") for i in range(10_000)])
    assert code_of(client.post("/predict_batch", content=body, headers=headers))[0] == 413
    assert code_of(client.post("/predict", content=b"x", headers={"Content-Encoding": "gzip"})) == (415, "wrong_type")


def test_a_full_queue_says_when_to_try_again(open_client, make_service, run_folder):
    service = make_service(run_folder, limits={"queue": 4, "max_images": 4})
    client = open_client(service)
    entered, leave = threading.Event(), threading.Event()

    def hold(items):
        entered.set()
        leave.wait(30)
        return items

    held = service.worker.submit(hold, [0])
    assert entered.wait(30)
    waiting = service.worker.submit(lambda items: items, range(4))
    for address, body, headers in (("/predict", encode(), {}), ("/predict_batch", *make_form([("a", encode())]))):
        answer = client.post(address, content=body, headers=headers)
        assert code_of(answer) == (503, "busy")
        assert int(answer.headers["retry-after"]) >= 1
    leave.set()
    assert [future.result(30) for future in (*held, *waiting)] == [0, 0, 1, 2, 3]
    assert client.post("/predict", content=encode()).status_code == 200


def test_concurrent_requests_are_joined_and_none_is_lost(client, service):
    answers = []

    def send(place):
        answers.append((place, client.post("/predict", content=images[place])))

    images = [encode(["red", "green", "blue"][place % 3], seed=place) for place in range(24)]
    alone = [client.post("/predict", content=image).json() for image in images]
    threads = [threading.Thread(target=send, args=(place,)) for place in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(answers) == 24
    for place, answer in answers:
        assert answer.json() == alone[place]
    assert service.reader.held == 0


def test_a_failure_is_an_error_in_json_and_the_server_lives_on(client, service, monkeypatch):
    monkeypatch.setattr(service, "predict", None)
    assert code_of(client.post("/predict", content=encode())) == (500, "failed")
    monkeypatch.undo()
    assert client.post("/predict", content=encode()).status_code == 200


def test_a_client_that_leaves_does_no_harm(client, service):
    import asyncio

    sent = []
    messages = iter([{"type": "http.request", "body": b"abc", "more_body": True}, {"type": "http.disconnect"}])

    async def receive():
        return next(messages)

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "path": "/predict"}
    scope |= {"raw_path": b"/predict", "query_string": b"", "root_path": "", "scheme": "http", "client": ("a", 1)}
    scope |= {"server": ("127.0.0.1", 8000), "headers": [(b"host", b"127.0.0.1")], "state": {}}
    asyncio.run(client.app(scope, receive, send))
    assert sent[0]["status"] == 400
    assert service.reader.held == 0
    assert client.post("/predict", content=encode()).status_code == 200


def test_uploads_never_touch_the_disk(client, shared_folder, monkeypatch):
    import tempfile

    def refuse(*args, **options):
        raise AssertionError("a temporary file")

    for name in ("TemporaryFile", "SpooledTemporaryFile", "NamedTemporaryFile", "mkstemp", "mkdtemp"):
        monkeypatch.setattr(tempfile, name, refuse)
    before = sorted(shared_folder.rglob("*"))
    body, headers = make_form([(f"{i}.png", encode(size=(700, 700), seed=i)) for i in range(4)])
    assert len(body) > 4_000_000
    assert client.post("/predict_batch", content=body, headers=headers).status_code == 200
    assert client.post("/predict?explain=true&neighbours=true", content=encode()).status_code == 200
    assert sorted(shared_folder.rglob("*")) == before


def test_memory_does_not_grow_with_requests(client):
    content = encode()

    def send(times):
        for _ in range(times):
            assert client.post("/predict", content=content).status_code == 200

    send(20)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    send(60)
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert grown < 300_000


def test_corrections_are_stored_listed_shown_and_undone(client, shared_folder):
    run_folder = shared_folder
    content = encode("red")
    answer = client.post("/corrections?label=%20coffee%20%20mug&name=..%2F..%2Fa.png&seen=0", content=content)
    (stored,) = answer.json()["corrections"]
    assert (stored["label"], stored["predicted"], stored["seen"]) == ("coffee mug", "red", 1)
    listed = client.get("/corrections").json()
    assert listed["corrections"] == [stored]
    assert listed["decisions"] == {stored["id"]: 1}
    assert listed["command"].startswith("transfer update ")
    assert Path(listed["file"]) == run_folder / "corrections" / "labels.csv"
    assert (run_folder / "corrections" / "images" / f"{stored['id']}.png").read_bytes() == content
    assert client.get(f"/corrections/{stored['id']}").headers["content-type"] == "image/jpeg"
    behind = client.post("/corrections?label=red&seen=0", content=content)
    assert code_of(behind) == (409, "behind")
    assert behind.json()["corrections"] == [stored]
    assert client.post(f"/corrections/{stored['id']}/undo?seen=1").json()["corrections"] == []
    assert list((run_folder / "corrections" / "images").iterdir()) == []
    assert client.get("/corrections").json()["decisions"] == {stored["id"]: 2}
    assert code_of(client.get(f"/corrections/{stored['id']}")) == (404, "no_image")


def test_a_correction_may_state_the_domain(client, shared_folder, open_client, make_service, run_folder):
    content = encode("red", seed=3)
    answer = client.post("/corrections?label=red&domain=attic", content=content)
    (stored,) = answer.json()["corrections"]
    assert (stored["label"], stored["domain"]) == ("red", "attic")
    again = client.post("/corrections?label=red", content=content)  # what is not stated is unknown
    assert [each["domain"] for each in again.json()["corrections"]] == [""]
    assert code_of(client.post("/corrections?label=red&domain=a%00b", content=content)) == (400, "bad_request")
    service = make_service(run_folder)
    del service.runs[0].specs["domain"]
    alone = open_client(service)
    assert code_of(alone.post("/corrections?label=red&domain=attic", content=content)) == (400, "no_domain")
    rmtree(shared_folder / "corrections")


def test_state_pages_and_description(client):
    assert client.get("/health").json()["status"] == "ok"
    about = client.get("/about").json()
    assert about["runs"][0]["main"] == "object"
    assert about["limits"]["images"] == 64
    client.post("/predict", content=encode())
    metrics = client.get("/metrics")
    assert metrics.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert 'transfer_requests_total{path="/predict",status="200"}' in metrics.text
    for place in range(3):
        client.get(f"/nothing/{place}")
    text = client.get("/metrics").text
    assert 'transfer_requests_total{path="other",status="404"}' in text
    assert "/nothing" not in text
    described = client.get("/openapi.json").json()
    assert {"/predict", "/predict_batch", "/health", "/metrics", "/corrections"} <= described["paths"].keys()
    for address in ("/", "/docs"):
        page = client.get(address)
        assert page.status_code == 200
        assert "default-src 'none'" in page.headers["content-security-policy"]
        assert "unsafe" not in page.headers["content-security-policy"]
    assert "/predict_batch" in client.get("/docs").text


def test_with_a_token_all_but_health_needs_it(open_client, make_service, run_folder):
    client = open_client(make_service(run_folder, host="0.0.0.0"), TOKEN)
    assert client.get("/health").status_code == 200
    for address in ("/", "/docs", "/openapi.json", "/about", "/metrics", "/corrections", "/training/0/0"):
        assert code_of(client.get(address)) == (401, "no_token")
    assert code_of(client.post("/predict", content=encode())) == (401, "no_token")
    headers = {"Authorization": f"Bearer {TOKEN}"}
    assert client.post("/predict", content=encode(), headers=headers).status_code == 200
    assert code_of(client.post("/predict", content=encode(), headers=headers | {"Origin": "http://evil.example"})) == (
        403,
        "wrong_origin",
    )


def test_two_runs_are_served_beside_each_other(open_client, make_service, run_folder, served_folder):
    client = open_client(make_service(run_folder, served_folder))
    first, second = (client.post(f"/predict?run={run}", content=encode("blue")).json() for run in (0, 1))
    assert (first["run"], second["run"]) == (run_folder.name, served_folder.name)
    assert first["prediction"] == second["prediction"]
