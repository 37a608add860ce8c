"""Pictures of five things, drawn by code: a folder of images for readers who have none."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

SIZE = 192  # pixels, of each side
OVERSAMPLING = 2  # drawn at this multiple and reduced, for smooth edges
SHADE = 0.82  # of the colour of inner surfaces
THINGS = ("bottle", "bowl", "cup", "glass", "vase")

Colour = tuple[int, int, int]


def draw_things(folder: Path, per_class: int = 30, seed: int = 0, things: tuple[str, ...] = THINGS) -> Path:
    """Write `per_class` JPEG images of each thing to ``folder/THING/``; return `folder`.

    Colours, sizes, places, tilts and proportions are random.

    Parameters
    ----------
    per_class : int
        Images of each thing.
    seed : int
        Random seed; the same seed draws the same images.
    things : tuple of str
        Which of `THINGS` to draw.
    """
    random = np.random.default_rng(seed)
    for thing in things:
        (folder / thing).mkdir(parents=True, exist_ok=True)
        for number in range(per_class):
            draw_thing(thing, random).save(folder / thing / f"{thing}_{number:02d}.jpg", quality=90)
    return folder


def draw_thing(thing: str, random: np.random.Generator) -> Image.Image:
    """Return one picture of `thing`, RGB, `SIZE` x `SIZE` pixels."""
    side = SIZE * OVERSAMPLING
    wall, table, body = (_random_colour(random, low) for low in (150, 90, 40))
    layer = Image.new("RGBA", (side, side), (0, 0, 0, 0))
    _draw_shape(ImageDraw.Draw(layer), thing, body, random)
    layer = layer.rotate(random.uniform(-14, 14), Image.Resampling.BICUBIC, center=(side / 2, side * 0.8))
    scale = random.uniform(0.35, 1.0)
    layer = layer.resize((int(side * scale),) * 2, Image.Resampling.LANCZOS)
    picture = Image.new("RGB", (side, side), wall)
    horizon = int(side * random.uniform(0.5, 0.8))
    ImageDraw.Draw(picture).rectangle((0, horizon, side, side), fill=table)
    room = side - layer.width
    picture.paste(layer, (int(random.uniform(0, 1) * room), int(random.uniform(0.3, 1) * room)), layer)
    picture = picture.filter(ImageFilter.GaussianBlur(random.uniform(0, 2.5)))
    pixels = np.asarray(picture.resize((SIZE, SIZE), Image.Resampling.LANCZOS), float)
    noisy = pixels + random.normal(0, random.uniform(2, 12), pixels.shape)
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def _random_colour(random: np.random.Generator, low: int) -> Colour:
    red, green, blue = random.integers(low, 250, 3).tolist()
    return red, green, blue


def _draw_shape(draw: ImageDraw.ImageDraw, thing: str, body: Colour, random: np.random.Generator) -> None:
    """Draw the outline of `thing` by its half widths at heights, from the rim down, then its rim and handle."""
    bottom, middle = 310.0, 192.0
    top = {"bottle": 60, "bowl": 200, "cup": 140, "glass": 125, "vase": 90}[thing] + random.uniform(-20, 30)
    width = {"bottle": 42, "bowl": 110, "cup": 60, "glass": 54, "vase": 58}[thing] * random.uniform(0.75, 1.25)
    heights = np.linspace(0, 1, 40)  # 0: rim, 1: foot
    profile = {
        "bottle": np.clip((heights - 0.25) / 0.2, 0.32, 1),
        "bowl": np.sqrt(np.clip(1.08 - heights**2, 0.1, 1)),
        "cup": 1 - random.uniform(0, 0.3) * heights,
        "glass": 1 - random.uniform(0, 0.35) * heights,
        "vase": 0.55 + 0.45 * np.sin(np.pi * (heights * random.uniform(0.9, 1.1) + 0.55) * 1.2) ** 2,
    }[thing]
    if thing == "cup":
        side, height = random.choice([-1, 1]), bottom - top
        reach = width * random.uniform(0.3, 0.55)
        centre = middle + side * width * random.uniform(0.3, 0.95)  # a cup may be turned, its handle out of sight
        box = (centre - reach, top + 0.2 * height, centre + reach, top + 0.75 * height)
        draw.ellipse(box, outline=body, width=int(random.uniform(9, 16)))
    ys = top + heights * (bottom - top)
    left, right = (list(zip(middle + sign * width * profile, ys, strict=True)) for sign in (-1, 1))
    draw.polygon([*left, *right[::-1]], fill=body)
    rim = width * float(profile[0])
    inside = tuple(int(SHADE * value) for value in body)
    draw.ellipse((middle - rim, top - rim * 0.2, middle + rim, top + rim * 0.2), fill=inside, outline=body, width=4)
    foot = width * float(profile[-1])
    draw.ellipse((middle - foot, bottom - foot * 0.15, middle + foot, bottom + foot * 0.15), fill=body)
