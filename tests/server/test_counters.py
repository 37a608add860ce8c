import re

from transfer.server import counters
from transfer.server.counters import Histogram, ServerMetrics


def test_a_histogram_counts_values_up_to_each_bound():
    found = Histogram((1, 2, 5))
    for value in (0.5, 1, 2, 3, 9):
        found.add(value)
    assert found.format_lines("x", 'path="/a"') == [
        'x_bucket{path="/a",le="1"} 2',
        'x_bucket{path="/a",le="2"} 3',
        'x_bucket{path="/a",le="5"} 4',
        'x_bucket{path="/a",le="+Inf"} 5',
        'x_sum{path="/a"} 15.5',
        'x_count{path="/a"} 5',
    ]
    assert found.format_lines("x")[-1] == "x_count 5"


def test_every_line_is_of_the_text_format():
    metrics = ServerMetrics()
    metrics.count_request("/predict", 200, 0.03)
    metrics.count_request("/predict", 503, 0.001)
    metrics.count_batch(3)
    metrics.count_images("predicted", 3)
    lines = metrics.format_text(waiting=2, capacity=9).splitlines()
    sample = re.compile(r'[a-z_]+(\{([a-z]+="[^"\\]*",?)+\})? [-+.\de]+')
    assert all(line.startswith(("# HELP ", "# TYPE ")) or sample.fullmatch(line) for line in lines)
    for line in (
        'transfer_requests_total{path="/predict",status="200"} 1',
        'transfer_request_seconds_bucket{path="/predict",le="0.05"} 2',
        'transfer_batch_images_bucket{le="2"} 0',
        'transfer_batch_images_bucket{le="4"} 1',
        'transfer_images_total{outcome="predicted"} 3',
        "transfer_queue_images 2",
        "transfer_queue_capacity 9",
    ):
        assert line in lines
    named = [line.split()[2] for line in lines if line.startswith("# TYPE")]
    assert len(named) == len(set(named))


def test_memory_is_left_out_where_the_system_does_not_say_it(monkeypatch):
    assert counters.read_resident_bytes() >= 0
    monkeypatch.setattr(counters, "read_resident_bytes", lambda: 0)
    assert "resident" not in ServerMetrics().format_text(0, 1)
