from transfer.report.figures.label_curves import draw_label_curves


def test_each_strategy_is_a_curve_with_a_name_and_the_goal_a_dashed_line():
    curves = {"random": [0.1, 0.5], "a <b>": [0.3, 0.7]}
    svg = draw_label_curves("accuracy", [3, 6], curves, goal=0.9)
    assert svg.count('stroke-width="1.7"') == 2
    assert "a &lt;b&gt;" in svg
    assert svg.count("stroke-dasharray") == 1
    assert ">0.8</text>" in svg  # the axis reaches the goal
    assert "stroke-dasharray" not in draw_label_curves("accuracy", [3, 6], curves)


def test_one_round_and_equal_values_are_drawn():
    assert "<svg" in draw_label_curves("accuracy", [3], {"random": [0.5]}, 0.5)
