from transfer.report.console.inspection_text import inspection_text


def a_result(findings):
    overview = {"images": 1200, "labelled": 1000, "counts": {"cat": [1000], "": [200]}, "left_out": [{}, {}]}
    return {"overview": overview, "findings": findings, "images": {"path": ["/data/cat/a.png", "/data/cat/b\n.png"]}}


def test_each_finding_is_a_row_with_its_worst_image():
    finding = {"title": "Dark images", "count": 1500, "items": [{"rows": [1], "note": "99 % below 10 %"}]}
    head, _, table = inspection_text(a_result([finding])).partition("\n\n")
    assert head == "1,200 images, 1,000 labelled, 1 class; 2 files left out"
    title, row = table.splitlines()
    assert title.split() == ["finding", "images", "first"]
    assert row.split("  ")[0] == "Dark images"
    assert r"1,500  cat/b\u000a.png (99 % below 10 %)" in row
    assert title.index("first") == row.index("cat/")  # texts are aligned left


def test_a_sound_set_says_so():
    assert inspection_text(a_result([])).endswith("nothing odd was found")
