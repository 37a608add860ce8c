"""A map of features in the plane (t-SNE) that shows the images themselves."""

from collections.abc import Mapping, Sequence

import numpy as np
from markupsafe import Markup

from transfer.report.figures.svg import COLOURS, Drawing, shorten

MAP_WIDTH, MAP_HEIGHT = 1100, 720  # pixels
MAP_PICTURE_SIDE = 30  # of a picture on the map
MAX_DOMAIN_NAME = 20  # characters of a domain's name


def draw_image_map(
    places: np.ndarray, pictures: Sequence[str], titles: Sequence[str], domains: Sequence[str]
) -> Markup:
    """Return a drawing of `pictures` (data URIs, N) at `places` (N, 2); a frame's colour is that of the domain (N).

    One domain has no frame. A point without a picture is a dot.
    """
    drawing = Drawing("map of features that shows the images", MAP_WIDTH, MAP_HEIGHT)
    low, extent = places.min(0), np.maximum(np.ptp(places, axis=0), 1e-9)
    pixels = (places - low) / extent * (MAP_WIDTH - MAP_PICTURE_SIDE, MAP_HEIGHT - MAP_PICTURE_SIDE)
    names = list(dict.fromkeys(domains))
    colour: Mapping[str, str] = {name: COLOURS[k % len(COLOURS)] for k, name in enumerate(names)}
    for (x, y), picture, title, domain in zip(pixels.tolist(), pictures, titles, domains, strict=True):
        if not picture:
            drawing.markers([(x + MAP_PICTURE_SIDE / 2, y + MAP_PICTURE_SIDE / 2)], r=3, fill=colour[domain])
            continue
        drawing.picture(x, y, MAP_PICTURE_SIDE, picture, title)
        if len(names) > 1:
            frame = {"fill": "none", "stroke": colour[domain], "stroke_width": 2}
            drawing.add("rect", x=x, y=y, width=MAP_PICTURE_SIDE, height=MAP_PICTURE_SIDE, **frame)
    if len(names) > 1:
        entries = [("square", colour[name], shorten(name, MAX_DOMAIN_NAME)) for name in names]
        drawing.height = drawing.legend(entries, 0, MAP_HEIGHT + 6, MAP_WIDTH)
    return drawing.svg
