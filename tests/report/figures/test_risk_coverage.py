from transfer.report.figures.risk_coverage import draw_risks


def test_each_head_with_a_curve_is_drawn():
    curve = {"curve": [[0.5, 0.0, 0.9], [1.0, 0.25, 0.4]], "area": 0.1}
    heads = {"a <head>": {"risk_coverage": curve}, "object_and_domain": {}, "empty": {"risk_coverage": {}}}
    (svg,) = draw_risks({"heads": heads})
    assert "a &lt;head&gt;" in svg
    assert "images answered, %" in svg
    assert draw_risks({}) == []
