from html.parser import HTMLParser

from transfer.report.figures.svg import INK, svg_figure


def draw(name="a", text="<b>&$x$</b> 猫"):
    with svg_figure(name, f"about {text!r}") as (figure, drawn):
        place = figure.subplots()
        place.plot([0, 1], [0, 1], marker="o", color=INK)
        place.set_title(text)
        place.text(0, 0, "here", gid="named")
    return drawn.svg


def test_it_is_an_element_that_stands_in_a_page():
    svg = draw()
    assert svg.startswith("<svg ")
    assert "&lt;b&gt;&amp;$x$&lt;/b&gt; 猫" in svg
    assert "<b>" not in svg
    assert INK not in svg
    assert "currentColor" in svg
    assert 'class="named"' in svg
    assert "<metadata" not in svg

    class Ids(HTMLParser):
        ids: list = []  # noqa: RUF012

        def handle_starttag(self, tag, attrs):
            self.ids.extend(value for name, value in attrs if name == "id")

    parser = Ids()
    parser.feed(svg + draw("b"))
    assert len(parser.ids) == len(set(parser.ids))


def test_the_same_again():
    assert draw() == draw()
