"""Screens: panels with text, buttons, tables, charts and patterns, their edges on whole pixels."""

import cv2
import numpy as np

from restore.training.data.procedural.lettering import Face, words, write
from restore.training.data.procedural.palette import contrast, halve, plain, tones

Rng = np.random.Generator
Area = tuple[int, int, int, int]  # x, y, width, height in pixels


class Screen:
    """A picture twice as large as it will be, and the labels that are written on it in the end."""

    def __init__(self, rng: Rng, size: int, faces: tuple[Face, ...]):
        self.rng, self.size = rng, size
        self.ground, self.inks = contrast(rng, 4)
        self.accents = np.concatenate([self.inks[1:], rng.uniform(0, 255, (2, 3)), tones(rng, 2)])
        self.face = faces[rng.integers(len(faces))]
        self.px = rng.uniform(8, 18)
        self.rgb = plain(2 * size, 2 * size, self.ground)
        self.labels: list[tuple] = []

    def accent(self) -> np.ndarray:
        return self.accents[self.rng.integers(len(self.accents))]

    def words(self, count: int) -> list[str]:
        return words(self.rng, count, self.face.scripts[0])

    def box(self, area: Area, colour: np.ndarray, radius: int = 0) -> None:
        x, y, width, height = area
        if min(width, height) <= 0:
            return
        colour = np.rint(colour).clip(0, 255).tolist()
        if not radius:
            last = (2 * (x + width) - 1, 2 * (y + height) - 1)
            cv2.rectangle(self.rgb, (2 * x, 2 * y), last, colour, -1)
            return
        radius = min(radius, width // 2, height // 2)
        inner = np.array([[x, y], [x + width, y + height]]) * 2 + [[radius * 2], [-radius * 2 - 1]]
        for a, b in ((0, radius * 2), (radius * 2, 0)):
            first, last = inner[0] - (a, b), inner[1] + (a, b)
            cv2.rectangle(self.rgb, first.tolist(), last.tolist(), colour, -1)
        for cx in inner[:, 0].tolist():
            for cy in inner[:, 1].tolist():
                cv2.circle(self.rgb, (cx, cy), radius * 2, colour, -1, cv2.LINE_AA)

    def label(self, text: str, x: float, y: float, ink=None, px: float = 0, middle=False) -> None:
        px = px or self.px
        x -= self.face.width(text, px) / 2 if middle else 0
        self.labels.append((text, (x, y), px, self.face, self.inks[0] if ink is None else ink))


def notes(screen: Screen, area: Area) -> None:
    x, y, width, height = area
    line, length = screen.px * 1.5, max(1, int(width / screen.px / 3))
    for number in range(int(height / line)):
        said = " ".join(screen.words(int(screen.rng.integers(1, length + 1))))
        screen.label(said[: int(width / screen.px * 1.6)], x, y + (number + 0.8) * line)


def buttons(screen: Screen, area: Area) -> None:
    """Rows of fields and buttons, their words in the middle."""
    x, y, width, height = area
    tall, wide = int(screen.px * 2), int(screen.px * screen.rng.uniform(4, 8))
    radius, gap = int(screen.rng.integers(0, tall // 2 + 1)), int(screen.rng.integers(2, 9))
    colour, rim = screen.accent(), screen.accent()
    for top in range(y, y + height - tall, tall + gap):
        for left in range(x, x + width - wide, wide + gap):
            screen.box((left, top, wide, tall), rim, radius)
            is_field = screen.rng.random() < 0.3
            face = screen.ground if is_field else colour
            screen.box((left + 1, top + 1, wide - 2, tall - 2), face, radius)
            ink = screen.inks[0] if is_field else readable(colour)
            said = screen.words(1)[0][: max(1, wide // int(screen.px * 0.6) - 1)]
            screen.label(said, left + wide / 2, top + 0.67 * tall, ink, middle=True)


def table(screen: Screen, area: Area) -> None:
    x, y, width, height = area
    row, column = int(screen.px * 1.7), int(screen.px * screen.rng.uniform(3, 7))
    shade = 0.9 * screen.ground + 0.1 * screen.inks[0]
    line = 0.6 * screen.ground + 0.4 * screen.inks[0]
    for number, top in enumerate(range(y, y + height - row + 1, row)):
        screen.box((x, top, width, row), shade if number % 2 else screen.ground)
        screen.box((x, top, width, 1), line)
        for left in range(x + 2, x + width - column + 1, column):
            said = screen.words(1)[0][: int(column / screen.px * 1.3)]
            screen.label(said, left, top + 0.7 * row)


def bars(screen: Screen, area: Area) -> None:
    """A chart of columns over thin lines, with or without numbers below."""
    x, y, width, height = area
    count, step = int(screen.rng.integers(3, 12)), max(4, height // 5)
    for top in range(y, y + height, step):
        screen.box((x, top, width, 1), 0.8 * screen.ground + 0.2 * screen.inks[0])
    wide, colour = max(2, width // count), screen.accent()
    fat = max(1, int(wide * screen.rng.uniform(0.4, 1)))
    for number, share in enumerate(screen.rng.random(count)):
        tall = int(share * height)
        screen.box((x + number * wide, y + height - tall, fat, tall), colour)


def plot(screen: Screen, area: Area) -> None:
    """Lines through noise or waves, with axes."""
    x, y, width, height = area
    screen.box((x, y, 1, height), screen.inks[0])
    screen.box((x, y + height - 1, width, 1), screen.inks[0])
    at = np.linspace(x, x + width, int(screen.rng.integers(4, 40)))
    for _ in range(screen.rng.integers(1, 4)):
        walk = np.cumsum(screen.rng.normal(size=len(at)))
        level = y + height * (walk.max() - walk) / max(np.ptp(walk), 1e-6)
        points = np.rint(np.stack([at, level], 1) * 32).astype(np.int32)  # two pixels, 1/16 each
        weight, colour = int(screen.rng.integers(2, 6)), screen.accent().tolist()
        cv2.polylines(screen.rgb, [points], False, colour, weight, cv2.LINE_AA, 4)


def pie(screen: Screen, area: Area) -> None:
    x, y, width, height = area
    radius, turn = min(width, height) - 2, 0.0
    centre = (2 * x + width, 2 * y + height)
    if radius < 4:
        return
    for share in screen.rng.dirichlet(np.ones(screen.rng.integers(2, 7))):
        colour, end = screen.accent().tolist(), turn + 360 * share
        cv2.ellipse(screen.rgb, centre, (radius, radius), 0, turn, end, colour, -1, cv2.LINE_AA)
        turn = end
    if screen.rng.random() < 0.4:
        hole = int(radius * screen.rng.uniform(0.3, 0.8))
        cv2.circle(screen.rgb, centre, hole, screen.ground.tolist(), -1, cv2.LINE_AA)


def ruler(screen: Screen, area: Area) -> None:
    x, y, width, height = area
    step = int(screen.rng.integers(2, 9))
    for number, left in enumerate(range(x, x + width, step)):
        share = 0.9 if number % 10 == 0 else 0.6 if number % 5 == 0 else 0.35
        screen.box((left, y, 1, max(1, int(min(height, 40) * share))), screen.inks[0])
        if number % 10 == 0 and height > 2 * screen.px:
            screen.label(str(number), left + 2, y + min(height, 40), px=8)


def checks(screen: Screen, area: Area) -> None:
    x, y, width, height = area
    cell, colours = int(screen.rng.integers(1, 17)), (screen.accent(), screen.accent())
    rows, columns = np.ogrid[: 2 * height, : 2 * width]
    odd = (rows // (2 * cell) + columns // (2 * cell)) % 2
    made = np.where(odd[..., None], *colours).clip(0, 255)
    screen.rgb[2 * y : 2 * (y + height), 2 * x : 2 * (x + width)] = made


def grating(screen: Screen, area: Area) -> None:
    """Waves that grow finer, up to two pixels a wave."""
    x, y, width, height = area
    rows, columns = np.ogrid[: 2 * height, : 2 * width]
    angle = screen.rng.uniform(0, np.pi)
    along = columns * np.cos(angle) + rows * np.sin(angle)
    rate = screen.rng.uniform(0.02, np.pi / 4)
    share = 0.5 + 0.5 * np.cos(rate * along * (0.3 + 0.7 * along / max(abs(along).max(), 1)))
    one, other = screen.accent(), screen.accent()
    made = (one + share[..., None] * (other - one)).clip(0, 255)
    screen.rgb[2 * y : 2 * (y + height), 2 * x : 2 * (x + width)] = made


def icons(screen: Screen, area: Area) -> None:
    """A grid of small round and square signs."""
    x, y, width, height = area
    side = int(screen.rng.integers(10, 33))
    gap, radius = int(side * screen.rng.uniform(0.2, 0.8)), int(screen.rng.integers(0, side // 2))
    for top in range(y, y + height - side + 1, side + gap):
        for left in range(x, x + width - side + 1, side + gap):
            colour = screen.accent()
            screen.box((left, top, side, side), colour, radius)
            count = int(screen.rng.integers(3, 9))
            at = np.arange(count) * 2 * np.pi / count + screen.rng.uniform(0, 6)
            reach = np.where(np.arange(count) % 2, screen.rng.uniform(0.3, 1), 1) * 0.7 * side
            middle = np.array([2 * left + side, 2 * top + side])
            points = middle + np.stack([np.cos(at), np.sin(at)], 1) * reach[:, None]
            points = np.rint(points * 16).astype(np.int32)
            cv2.fillPoly(screen.rgb, [points], readable(colour).tolist(), cv2.LINE_AA, 4)


def swatch(screen: Screen, area: Area) -> None:
    """A gradient between two colours, as headers and photos' placeholders have it."""
    x, y, width, height = area
    one, other = screen.accent(), screen.accent()
    rows, columns = np.ogrid[: 2 * height, : 2 * width]
    lean = screen.rng.random()
    share = lean * rows / (2 * height) + (1 - lean) * columns / (2 * width)
    made = (one + share[..., None] * (other - one)).clip(0, 255)
    screen.rgb[2 * y : 2 * (y + height), 2 * x : 2 * (x + width)] = made


WIDGETS = (notes, notes, buttons, table, bars, plot, pie, ruler, checks, grating, icons, swatch)


def readable(colour: np.ndarray) -> np.ndarray:
    """Black or white, whichever stands out more."""
    return np.full(3, 0 if colour @ [0.299, 0.587, 0.114] > 140 else 255)


def panels(rng: Rng, area: Area, smallest: int) -> list[Area]:
    """The area, cut again and again."""
    x, y, width, height = area
    longer = max(width, height)
    if longer < 2 * smallest or (longer < 5 * smallest and rng.random() < 0.3):
        return [area]
    cut = int(rng.integers(smallest, longer - smallest + 1))
    if width >= height:
        parts = (x, y, cut, height), (x + cut, y, width - cut, height)
    else:
        parts = (x, y, width, cut), (x, y + cut, width, height - cut)
    return [panel for part in parts for panel in panels(rng, part, smallest)]


def screen(rng: Rng, size: int, faces: tuple[Face, ...]) -> np.ndarray:
    """uint8 (size, size, 3): panels, each with a title or none and one kind of content."""
    canvas = Screen(rng, size, faces)
    gap, radius = int(rng.integers(0, 6)), int(rng.integers(0, 10)) if rng.random() < 0.5 else 0
    is_titled = rng.random() < 0.5
    bar, rim = canvas.accent(), 0.7 * canvas.ground + 0.3 * canvas.inks[0]
    for left, above, wide, tall in panels(rng, (0, 0, size, size), int(rng.integers(40, 100))):
        x, y, width, height = left + gap, above + gap, wide - 2 * gap, tall - 2 * gap
        canvas.box((x, y, width, height), rim, radius)
        canvas.box((x + 1, y + 1, width - 2, height - 2), canvas.ground, radius)
        top = int(canvas.px * 1.6) if is_titled and height > 4 * canvas.px else 0
        if top:
            canvas.box((x + 1, y + 1, width - 2, top), bar)
            title = " ".join(canvas.words(2))[: int(width / canvas.px * 1.5)]
            canvas.label(title, x + 5, y + 0.75 * top, readable(bar))
        inside = (x + 5, y + top + 5, width - 10, height - top - 10)
        if min(inside[2:]) > 4:
            WIDGETS[rng.integers(len(WIDGETS))](canvas, inside)
    rgb = halve(canvas.rgb)
    for text, at, px, face, ink in canvas.labels:
        write(rgb, text, at, px, face, ink)
    return rgb
