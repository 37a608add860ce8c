"""Characters drawn in matplotlib's bundled fonts: poses, strokes, colours and backgrounds.

The embedded digits (`sets.digits`) and the letters that the bundled backbone learned are both made of these
parts, from fonts and photographs that never meet: see `PRINTED`, `PRETRAINING` and `photographs`.
"""

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

SIZE = 48  # side of every image, pixels

# Font families with letters and digits; the other fonts of matplotlib hold symbols only.
PRINTED = {
    "STIX": ("STIXGeneral", "STIXGeneralBol", "STIXGeneralBolIta", "STIXGeneralItalic"),
    "Computer Modern": ("cmb10", "cmr10", "cmss10", "cmti10", "cmtt10"),
}
PRETRAINING = {
    "DejaVu Sans": tuple(f"DejaVuSans{s}" for s in ("", "-Bold", "-BoldOblique", "-Oblique")),
    "DejaVu Sans Mono": tuple(f"DejaVuSansMono{s}" for s in ("", "-Bold", "-BoldOblique", "-Oblique")),
    "DejaVu Serif": tuple(f"DejaVuSerif{s}" for s in ("", "-Bold", "-BoldItalic", "-Italic")),
}

# Classes of pretraining: letters of five alphabets that every face of `PRETRAINING` has. Left out are those that look
# like a digit (correlation of their shapes, scaled to one size, 0.75 or more in any face) and like one already in.
LETTERS = (
    "AEHKLMNPRTUVWXYZabcdefkmnpqrtuy"
    "ΓΞΣΦΨΩαβγεζηκλμνπςστυφχω"
    "ДЖЙЛФЦЧШЩЪЫЬЮЯилмтфцшщъыэю"
    "ԲԳԵԶԷԸԹԺԻԽԾԿՀՁՂՃՄՆՇՉՊՌՎՔՖդեզէթիխծկհձմնչպռվքֆ"
    "აბდთლოჟრსტუფქღშჩძჭჯჰ"
)


@dataclass(frozen=True)
class Pose:
    """Ranges of the random pose of a glyph; uniform, except the wobble, which is normal.

    Parameters
    ----------
    extent : tuple of float
        Least and greatest longer side, as a fraction of the image's side.
    rotation : float
        Greatest angle to either side, degrees.
    shear : float
        Greatest slant to either side, as a tangent.
    stretch : float
        Greatest logarithm of width over height, to either side.
    shift : float
        Greatest displacement to either side, as a fraction of the image's side.
    wobble : float
        Standard deviation of each point of a 4 x 4 net, as a fraction of the image's side: a hand's unsteadiness.
    """

    extent: tuple[float, float] = (0.55, 0.8)
    rotation: float = 15.0
    shear: float = 0.2
    stretch: float = 0.2
    shift: float = 0.08
    wobble: float = 0.0


def font_file(face: str) -> Path:
    """Return the file of one of matplotlib's bundled faces, such as ``DejaVuSans-Bold``."""
    import matplotlib

    return Path(matplotlib.get_data_path(), "fonts", "ttf", f"{face}.ttf")


@functools.lru_cache(maxsize=4096)
def template(face: str, character: str) -> Image.Image:
    """Return a character as a grey image (255 is ink), about `SIZE` pixels high. Cached: do not modify it."""
    font = ImageFont.truetype(str(font_file(face)), SIZE, layout_engine=ImageFont.Layout.BASIC)
    drawn = Image.new("L", (3 * SIZE, 3 * SIZE))
    ImageDraw.Draw(drawn).text((SIZE, SIZE // 2), character, fill=255, font=font)
    box = drawn.getbbox()
    if box is None:
        raise ValueError(f"{face} has no glyph for {character!r}")
    return drawn.crop((box[0] - 1, box[1] - 1, box[2] + 1, box[3] + 1))  # an empty margin, for interpolation


def posed(shape: Image.Image, pose: Pose, rng: np.random.Generator) -> np.ndarray:
    """Return `shape` in a random pose on an empty square, float32, shape (SIZE, SIZE), 1 is ink."""
    angle = np.deg2rad(rng.uniform(-pose.rotation, pose.rotation))
    cos, sin = np.cos(angle), np.sin(angle)
    stretch = np.exp(rng.uniform(-pose.stretch, pose.stretch) / 2)
    scale = SIZE * rng.uniform(*pose.extent) / max(shape.size[0] * stretch, shape.size[1] / stretch)
    slant = np.array([[1.0, rng.uniform(-pose.shear, pose.shear)], [0.0, 1.0]])
    forward = np.array([[cos, -sin], [sin, cos]]) @ slant @ np.diag([stretch, 1 / stretch]) * scale
    knots = np.linspace(0, SIZE, 4)
    grid = np.stack(np.meshgrid(knots, knots), axis=-1)  # (row, column, xy) in the image
    moved = grid - SIZE / 2 - SIZE * rng.uniform(-pose.shift, pose.shift, 2)
    moved += SIZE * pose.wobble * rng.standard_normal(grid.shape)
    source = moved @ np.linalg.inv(forward).T + np.array(shape.size) / 2
    mesh = [
        (
            (int(knots[j]), int(knots[i]), int(knots[j + 1]), int(knots[i + 1])),
            (*source[i, j], *source[i + 1, j], *source[i + 1, j + 1], *source[i, j + 1]),  # nw, sw, se, ne
        )
        for i in range(3)
        for j in range(3)
    ]
    image = shape.transform((SIZE, SIZE), Image.Transform.MESH, mesh, Image.Resampling.BILINEAR)
    return np.asarray(image, np.float32) / 255


def restroked(ink: np.ndarray, radius: float, level: float, sharpness: float) -> np.ndarray:
    """Return `ink` blurred and cut again at `level`: thicker below 0.5, thinner above, corners rounded.

    Parameters
    ----------
    ink : ndarray of float32, shape (H, W)
        1 is ink.
    radius : float
        Standard deviation of the blur, pixels.
    level : float
        Blurred ink that becomes half ink.
    sharpness : float
        Slope of the cut; 1 keeps the blur.
    """
    blurred = Image.fromarray(np.uint8(ink * 255 + 0.5)).filter(ImageFilter.GaussianBlur(radius))
    return np.clip((np.asarray(blurred, np.float32) / 255 - level) * sharpness + 0.5, 0, 1)


def resampled(ink: np.ndarray, side: int) -> np.ndarray:
    """Return `ink` as after a scan at `side` x `side` pixels, smoothly enlarged again."""
    coarse = Image.fromarray(np.uint8(ink * 255 + 0.5)).resize((side, side), Image.Resampling.BOX)
    return np.asarray(coarse.resize(ink.shape[::-1], Image.Resampling.BICUBIC), np.float32) / 255


def two_colours(rng: np.random.Generator, contrast: float) -> tuple[np.ndarray, np.ndarray]:
    """Return ink and paper, float32, shape (3,), in [0, 1], whose luminances differ by at least `contrast`."""
    while True:
        ink, paper = rng.random((2, 3), np.float32)
        if abs(float((ink - paper) @ (0.299, 0.587, 0.114))) >= contrast:
            return ink, paper


@functools.cache
def photographs(half: Literal["left", "right"]) -> tuple[Image.Image, ...]:
    """Return the left or the right halves of scikit-learn's two sample photographs.

    Digits are blended over right halves; pretraining sees left halves alone.
    """
    from sklearn.datasets import load_sample_images

    halves = []
    for pixels in load_sample_images().images:
        middle = pixels.shape[1] // 2
        halves.append(Image.fromarray(pixels[:, :middle] if half == "left" else pixels[:, middle:]))
    return tuple(halves)


def photo_patch(rng: np.random.Generator, half: Literal["left", "right"]) -> np.ndarray:
    """Return a random square of a photograph, float32, shape (SIZE, SIZE, 3)."""
    photo = photographs(half)[rng.integers(2)]
    side = int(rng.integers(SIZE, 3 * SIZE + 1))  # never enlarged
    x, y = (int(rng.integers(0, most - side + 1)) for most in photo.size)
    patch = photo.resize((SIZE, SIZE), Image.Resampling.BILINEAR, box=(x, y, x + side, y + side))
    if rng.random() < 0.5:
        patch = patch.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return np.asarray(patch, np.float32) / 255


def gradient(start: np.ndarray, end: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a linear gradient from one colour to another, float32, shape (SIZE, SIZE, 3)."""
    angle = rng.uniform(0, 2 * np.pi)
    line = np.linspace(-0.5, 0.5, SIZE, dtype=np.float32)
    along = np.clip(line * np.float32(np.cos(angle)) + line[:, None] * np.float32(np.sin(angle)) + 0.5, 0, 1)
    return start + along[..., None] * (end - start)


def clouds(colour: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Return a colour with soft coloured blots of a random size, float32, shape (SIZE, SIZE, 3)."""
    side = int(rng.integers(2, SIZE // 2))
    blots = rng.integers(0, 256, (side, side, 3), np.uint8)
    smooth = Image.fromarray(blots).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    return colour + strength * (np.asarray(smooth, np.float32) / 255 - 0.5)


def inked(ground: np.ndarray, ink: np.ndarray, colour: np.ndarray) -> np.ndarray:
    """Return `ground` (SIZE, SIZE, 3) covered with `colour`, (3,) or (SIZE, SIZE, 3), at `ink` (SIZE, SIZE)."""
    return ground + ink[..., None] * (colour - ground)


def blended(ground: np.ndarray, ink: np.ndarray) -> np.ndarray:
    """Return ``|ground - ink|`` in each channel, as MNIST-M was made (Ganin et al., JMLR 2016, section 5.2.4)."""
    return np.abs(ground - ink[..., None])


def picture(values: np.ndarray, noise: float, rng: np.random.Generator) -> Image.Image:
    """Return `values` (SIZE, SIZE, 3) in [0, 1] as an RGB image, with normal noise of that standard deviation."""
    if noise:
        values = values + np.float32(noise) * rng.standard_normal(values.shape, np.float32)
    return Image.fromarray(np.uint8(np.clip(values, 0, 1) * 255 + 0.5))
