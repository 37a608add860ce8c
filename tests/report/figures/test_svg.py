from html.parser import HTMLParser

from transfer.report.figures.svg import MARKERS, Drawing, text_width


def draw(text="<b>&$x$</b> 猫"):
    drawing = Drawing(f'about "{text}"', 200, 100)
    drawing.line(0, 1, 20, 30.123456)
    drawing.text(5, 5, text, class_="named")
    drawing.turned_text(7, 8, "upwards")
    return drawing


def test_it_is_an_element_that_stands_in_a_page():
    svg = draw().svg
    assert svg.startswith("<svg ")
    assert svg.rstrip().endswith("</svg>")
    assert "&lt;b&gt;&amp;$x$&lt;/b&gt; 猫" in svg
    assert "<b>" not in svg
    assert 'viewBox="0 0 200 100"' in svg
    assert 'class="named"' in svg
    assert 'stroke="currentColor"' in svg
    assert 'y2="30.12"' in svg
    assert 'transform="rotate(-90 7 8)"' in svg
    found = []

    class Parser(HTMLParser):
        def handle_starttag(self, tag, attrs):
            found.append((tag, dict(attrs)))

    Parser().feed(svg)
    assert found[0][1]["aria-label"] == 'about "<b>&$x$</b> 猫"'
    assert [tag for tag, _ in found] == ["svg", "line", "text", "text"]


def test_the_same_again():
    assert draw().svg == draw().svg


def test_text_without_a_glyph_is_escaped():
    assert "\\udcff" in draw("\udcff").svg
    assert "\x1b" not in draw("\x1b[31m").svg


def test_markers_are_one_element_with_a_closed_path_each():
    for shape in MARKERS:
        drawing = Drawing("", 10, 10)
        drawing.markers([(1, 2), (3, 4), (5, 6)], shape, fill="#123456")
        (path,) = drawing.pieces
        assert (path.count("M"), path.count("z")) == (3, 3)
        assert "{" not in path
    drawing.markers([])
    assert len(drawing.pieces) == 1


def test_a_legend_that_is_too_long_takes_another_row():
    entries = [("circle", "#000000", "a name of some length")] * 4
    rows = text_width(entries[0][2]) + 26
    drawing = Drawing("", 400)
    assert drawing.legend(entries, 0, 10, 4 * rows + 1) == 10 + 17
    assert drawing.legend(entries, 0, 10, 2 * rows + 1) == 10 + 2 * 17
    assert drawing.legend([], 0, 10, 100) == 10


def test_wide_letters_take_more_room():
    assert text_width("猫猫") > text_width("ab")
