import base64
import io

from PIL import Image

from transfer.report.figures.thumbnails import Thumbnails


def test_pictures_are_small_jpegs_of_the_rows(images, tmp_path):
    Image.new("RGB", (300, 100), "red").save(tmp_path / "wide.png")
    drawn = Thumbnails([str(images.paths[0]), str(tmp_path / "wide.png")]).draw([1, 1], 60)
    assert list(drawn) == [1]
    image = Image.open(io.BytesIO(base64.b64decode(drawn[1].partition(",")[2])))
    assert (image.format, image.size) == ("JPEG", (60, 20))
    assert image.getpixel((30, 10))[0] > 240


def test_files_that_are_gone_or_broken_have_no_picture(images, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"x")
    paths = [str(tmp_path / "none.png"), str(tmp_path / "broken.png"), str(images.paths[3])]
    assert list(Thumbnails(paths).draw([0, 1, 2], 20)) == [2]


def test_a_page_has_no_more_than_its_budget(images):
    every = Thumbnails(images.paths.tolist()).draw(range(10), 20)
    budget = sum(map(len, every.values())) // 2
    thumbnails = Thumbnails(images.paths.tolist(), budget=budget)
    drawn = [*thumbnails.draw(range(5), 20).values(), *thumbnails.draw(range(5, 10), 20).values()]
    assert 0 < sum(map(len, drawn)) <= budget
    assert len(drawn) < 10
