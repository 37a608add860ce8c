import json

import numpy as np

from transfer.curation.inspection.finding import Finding, FoundItem


def test_a_finding_is_plain_json_and_counts_each_image_once():
    finding = Finding("a", "A", "why", "what to do", [FoundItem((np.int64(3), 1), "x"), FoundItem((1,), "y", "cat")])
    assert finding.rows == [3, 1]
    found = json.loads(json.dumps(finding.to_dict()))
    assert found["count"] == 2
    assert found["items"] == [
        {"rows": [3, 1], "note": "x", "suggested": ""},
        {"rows": [1], "note": "y", "suggested": "cat"},
    ]
