"""Words set in many faces and sizes, written on pictures."""

import logging
import math
import string
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from restore.errors import ConfigError

log = logging.getLogger(__name__)
SMALLEST, LARGEST = 8, 64  # px of an em
SCRIPTS = {
    "latin": string.ascii_lowercase,
    "accented": "aàáâäãåæbcçdeèéêëfghiíîïklłmnñoóôöøprsśštuúûüvyzžß",
    "greek": "αβγδεζηθικλμνξοπρστυφχψω",
    "cyrillic": "абвгдежзийклмнопрстуфхцчшщъыьэюя",
    "kana": "あいうえおかきくけこさしすせそたちつてとアイウエオカキクケコサシスセソ",
    "han": "一不了人我在有他大来以个中上们到国和地也子时道出而要于就下得可你年生",
    "hangul": "가나다라마바사아자차카타파하은이을를의에로도",
}
ENGLISH = """the of and to in is you that it he was for on are as with his they at be this have from
or one had by word but not what all were we when your can said there use an each which she do how
their if will up other about out many then them these so some her would make like him into time has
look two more write go see number no way could people my than first water been call who oil its now
find long down day did get come made may part over new sound take only little work know place year
live me back give most very after thing our just name good sentence man think say great where help
through much before line right too mean old any same tell boy follow came want show also around form
three small set put end does another well large must big even such because turn here why ask went
men read need land different home us move try kind hand picture again change off play spell air away
animal house point page letter mother answer found study still learn should world"""
COMMON = ENGLISH.split()
NUMBERS = ("{}", "{}%", "{}.{}", "{},{}", "20{}-{}", "{}:{}", "${}.{}", "#{}", "({})", "+{} {}")
CODE = (
    *("{0}({1});", "if {0}:", "{0} = {1}[{2}]", "def {0}({1}, {2}):", "// {0} {1}", "{0}.{1}()"),
    *("return {0}", "<{0} id='{1}'>", '"{0}": {1},', "for {0} in {1}:", "}}", "{0} += 1", ""),
)
OPENCV = (  # strokes up to OpenCV 4, outlines of several weights from 5 on
    *(cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_DUPLEX, cv2.FONT_HERSHEY_COMPLEX),
    *(cv2.FONT_HERSHEY_TRIPLEX, cv2.FONT_HERSHEY_SCRIPT_COMPLEX),
)


@dataclass(frozen=True)
class Face:
    """A font."""

    source: Path | int | None
    """A file, the number of an OpenCV face, or None for Pillow's default."""
    scripts: tuple[str, ...] = ("latin",)
    """The names in SCRIPTS whose letters the face has, all of them."""

    def width(self, text: str, px: float) -> float:
        """px that a line takes; the argument px is the height of an em."""
        if isinstance(self.source, int):
            return cv2.getTextSize(text, self.source, *_opencv(px))[0][0]
        return _font(self.source, round(px)).getlength(text)

    def cover(
        self, text: str, at: tuple[float, float], px: float, size: tuple[int, int]
    ) -> np.ndarray:
        """How much ink each pixel gets.

        Args:
            text: One line.
            at: (x, y) of the beginning of its baseline, pixels.
            px: Height of an em, pixels.
            size: (height, width) of the result.

        Returns:
            uint8 (height, width).
        """
        if isinstance(self.source, int):
            canvas, (scale, weight) = np.zeros(size, np.uint8), _opencv(px)
            at = (round(at[0]), round(at[1]))
            cv2.putText(canvas, text, at, self.source, scale, 255, weight, cv2.LINE_AA)
            return canvas
        canvas = Image.new("L", size[::-1])
        font = _font(self.source, round(px))
        ImageDraw.Draw(canvas).text(at, text, 255, font=font, anchor="ls")
        return np.asarray(canvas)


def _opencv(px: float) -> tuple[float, int]:
    """Scale and weight of OpenCV's faces."""
    return px / 30, max(1, round(px / 24))


@lru_cache(64)  # each keeps its file open
def _font(source: Path | None, px: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    if source is None:
        return ImageFont.load_default(px)
    return ImageFont.truetype(source, px, layout_engine=ImageFont.Layout.BASIC)


@cache
def bundled_faces() -> tuple[Face, ...]:
    """OpenCV's faces, Pillow's own, and those that come with matplotlib."""
    import matplotlib

    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    files = [*folder.glob("DejaVuS*[!y].ttf"), *folder.glob("STIXGeneral*.ttf")]  # no ...Display
    return (*map(Face, OPENCV), *(Face(at, scripts_of(at)) for at in (None, *sorted(files))))


def faces(folder: Path | None = None) -> tuple[Face, ...]:
    """The bundled fonts, and the .ttf and .otf files of a folder.

    Files that are no fonts, or do not have all letters of a script, are left out with a warning.

    Args:
        folder: The folder; None: only the bundled fonts.

    Raises:
        ConfigError: If the folder is missing or holds no usable font.
    """
    if folder is None:
        return bundled_faces()
    if not folder.is_dir():
        raise ConfigError(f"data.fonts: {folder} is no folder; name one with .ttf or .otf files")
    files = font_files(folder)
    theirs = [face for face in map(_usable, files) if face]
    if not theirs:
        message = f"{folder}: none of its {len(files)} .ttf and .otf files can be used"
        raise ConfigError(f"data.fonts: {message}; name another folder, or leave it out")
    return (*bundled_faces(), *theirs)


def font_files(folder: Path) -> list[Path]:
    """The .ttf and .otf files of a folder."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".ttf", ".otf"))


def _usable(file: Path) -> Face | None:
    try:
        scripts, why = scripts_of(file), f"it has none of {', '.join(SCRIPTS)} whole"
    except (OSError, ValueError) as error:
        scripts, why = (), str(error)
    if not scripts:
        log.warning("left out: %s: cannot be used as a font: %s", file, why)
    return Face(file, scripts) if scripts else None


def scripts_of(source: Path | None) -> tuple[str, ...]:
    """The scripts whose letters a font has: it draws them unlike a letter that no font has.

    Raises:
        OSError: If it is no font, or cannot draw.
    """
    font = _font(source, 16)

    def render(text: str) -> bytes:
        image = Image.new("L", (32, 32))
        ImageDraw.Draw(image).text((4, 24), text, 255, font=font, anchor="ls")
        return image.tobytes()

    render(string.printable.strip())
    missing = {render("\U0010fffd"), render(" ")}
    return tuple(
        name
        for name, letters in SCRIPTS.items()
        if missing.isdisjoint(render(letter) for letter in letters + letters.upper())
    )


def write(
    rgb: np.ndarray,
    text: str,
    at: tuple[float, float],
    px: float,
    face: Face,
    ink: np.ndarray,
    fine: int = 1,
) -> None:
    """Write a line into a picture, in place; what exceeds the picture is cut off.

    Args:
        rgb: uint8 (H, W, 3).
        text: One line.
        at: (x, y) of the beginning of its baseline, pixels.
        px: Height of an em, pixels.
        face: The font.
        ink: (3,) colour in [0, 255].
        fine: Letters are drawn this many times larger, then averaged; 1 as on a screen.
    """
    (x, y), (height, width) = at, rgb.shape[:2]
    top, bottom = max(0, math.floor(y - 1.1 * px)), min(height, math.ceil(y + 0.4 * px))
    if top >= bottom:
        return
    size = ((bottom - top) * fine, width * fine)
    cover = face.cover(text, (x * fine, (y - top) * fine), px * fine, size)
    if fine > 1:
        cover = cv2.resize(cover, (width, bottom - top), interpolation=cv2.INTER_AREA)
    strip, share = rgb[top:bottom], cover * np.float32(1 / 255)
    for plane, level in enumerate(np.asarray(ink, np.float32)):  # quicker than all three at once
        strip[..., plane] = np.rint(strip[..., plane] + share * (level - strip[..., plane]))


def words(rng: np.random.Generator, count: int, script: str = "latin") -> list[str]:
    """Random words: English ones, random letters of a script, numbers; some with capitals."""
    letters, result = SCRIPTS[script], []
    spelled = rng.integers(len(letters), size=9 * count).tolist()
    kinds, picks = rng.random((count, 2)).tolist(), rng.integers(1 << 30, size=count).tolist()
    for number, ((kind, how), pick) in enumerate(zip(kinds, picks, strict=True)):
        if kind < 0.1:
            word = NUMBERS[pick % len(NUMBERS)].format(pick % 10 ** (1 + pick % 4), 10 + pick % 89)
        elif kind < 0.7 and script == "latin":
            word = COMMON[pick % len(COMMON)]
        else:
            first = 9 * number
            word = "".join(letters[i] for i in spelled[first : first + 1 + pick % 9])
        if how < 0.25:
            word = word.upper() if how < 0.06 else word.capitalize()
        result.append(word + (".,;:!?"[pick % 6] if how > 0.87 else ""))
    return result


def lines(rng: np.random.Generator, count: int, length: int, script: str, style: str) -> list[str]:
    """Random lines.

    Args:
        rng: Draws them.
        count: Number of lines.
        length: Rough number of letters a line.
        script: One of SCRIPTS.
        style: "prose", "code" or "table".
    """
    text = iter(words(rng, count * (3 + length // 4), script) * 2)
    result, depth = [], 0
    for _ in range(count):
        if style == "code":
            depth = min(max(depth + int(rng.integers(-1, 2)), 0), 4)
            form = CODE[rng.integers(len(CODE))]
            result.append("    " * depth + form.format(next(text), next(text), next(text)))
            continue
        line = next(text)
        while len(line) < length:
            line += " " * (1 if style == "prose" else 2 + -len(line) % (length // 4 + 1))
            line += next(text)
        result.append(line)
    return result


def page(
    rng: np.random.Generator,
    rgb: np.ndarray,
    faces: tuple[Face, ...],
    inks: np.ndarray,
    zoom: float = 1,
) -> None:
    """Fill a picture with headings and paragraphs, in place.

    Args:
        rng: Draws them.
        rgb: uint8 (H, W, 3).
        faces: The fonts.
        inks: (n, 3) colours; most lines have the first.
        zoom: Factor of all sizes.
    """
    height, width = rgb.shape[:2]
    main, other = (faces[i] for i in rng.integers(len(faces), size=2))
    script = main.scripts[0 if rng.random() < 0.6 else rng.integers(len(main.scripts))]
    base = zoom * SMALLEST * (LARGEST / SMALLEST) ** rng.random()
    left, right = width * rng.uniform(-0.2, 0.15), width * rng.uniform(0.7, 1.3)
    spacing, fine = rng.uniform(1.1, 1.7), int(rng.integers(1, 3))
    style = ("prose", "prose", "code", "table")[rng.integers(4)]
    y = base * rng.uniform(-0.5, 1.5)
    while y < height:
        is_heading = rng.random() < 0.25
        px = min(base * rng.uniform(1.2, 2.2), LARGEST * zoom) if is_heading else base
        face = other if is_heading and script in other.scripts else main
        ink = inks[0 if rng.random() < 0.7 else rng.integers(len(inks))]
        count, length = int(rng.integers(1, 3 if is_heading else 9)), int(2 * (right - left) / px)
        for line in lines(rng, count, max(4, length), script, "prose" if is_heading else style):
            y += px * spacing
            write(rgb, line, (left, y), px, face, ink, fine)
        y += px * rng.uniform(0, 1)
