"""The work on one picture of a run over files: read it, make its result, write it."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from restore.batch import downloads, rates, views
from restore.batch.background import LAST_S
from restore.batch.destination import Destination
from restore.batch.holes import Holes, draw_overlay, make_opaque
from restore.batch.jobs import Job, file_seed
from restore.batch.journal import Row
from restore.batch.prefetch import Prefetcher
from restore.batch.provenance import describe_maker, format_settings
from restore.batch.rates import Rate
from restore.batch.step import Exists
from restore.errors import CancelledError, ImageError
from restore.options import Img2imgOptions, InpaintOptions, UpscaleOptions

if TYPE_CHECKING:
    import numpy as np

    from restore.batch.mask_files import Masks
    from restore.diffusion.watch import OnLook
    from restore.images.encode import Writing
    from restore.images.picture import Picture, Reading

FileOptions = UpscaleOptions | Img2imgOptions | InpaintOptions
LOSSY = "lossy: {} cannot keep what lies outside the mask byte for byte; --format png can"


class Progress(Protocol):
    """Receives the progress of a run."""

    def row(self, row: Row) -> None:
        """A picture is done."""

    def note(self, text: str) -> None:
        """There is a message for the user."""

    def part(self, done: int, of: int, what: str) -> None:
        """Of a stage of the current picture, `done` windows, blocks or bands are done."""


@dataclass(frozen=True)
class Settings:
    """The settings of a run over files, beside its task's options.

    Attributes:
        made_by: As results record it: the model, its digest, and what else decides the pixels.
        most_pixels: Of all results of one picture; 0: no limit.
    """

    destination: Destination
    seed: int
    exists: Exists
    reading: "Reading"
    writing: "Writing"
    made_by: dict[str, object]
    most_pixels: int = 0


@dataclass(frozen=True)
class ReadFile:
    """A file as it was read."""

    pictures: "list[Picture]"  # the frames asked for
    count: int  # of all its frames
    masks: "Sequence[np.ndarray | None]"  # one for each of these frames
    digests: tuple[str, ...]  # of the file and of its mask, taken before the reading

    @property
    def mask(self) -> "np.ndarray | None":
        """Of the first frame."""
        return self.masks[0]


@runtime_checkable
class Onlooker(Protocol):
    """A `Progress` that may also look at what is unfinished."""

    def look(self, sketch: "Callable[[], np.ndarray]") -> None:
        """`sketch` makes a small picture of the unfinished result, uint8 (h, w, 3)."""


class FileWork:
    """Makes the next picture while the last one is written and the one after it is read.

    So the model need not wait for disks and codecs. Files with several results are not made ahead.

    Args:
        kind: Returns the format of a source's result.
        rate: Of these results; it has the model, and the number of results of a picture.
        show: Receives the progress.
    """

    def __init__(
        self,
        planned: Iterable[Job],
        options: FileOptions,
        settings: Settings,
        *,
        holes: Holes,
        masks: "Masks | None",
        kind: Callable[[Path], str],
        rate: Rate,
        show: Progress,
    ):
        self.options, self.settings, self.holes, self.masks = options, settings, holes, masks
        self.count, self.kind, self.stack, self.rate = rate.count, kind, rate.stack, rate
        self.show = show
        self.is_over = self.is_warned = False
        self.load_s = 0.0  # seconds that the current picture waited for torch and the model

        def missing() -> Iterator[Job]:
            return (job for job in planned if not job.skip)

        import_module("restore.images.sandbox")  # before the threads, which would import it at once
        self.reading = Prefetcher(missing(), self.read)
        self.making = Prefetcher(missing(), self.make_next)

    def __enter__(self) -> "FileWork":
        return self

    def __exit__(self, *_: object) -> None:
        self.is_over = True
        self.reading.close()  # what is made waits for it
        self.making.close(LAST_S)
        self.reading.close(LAST_S)
        self.rate.keep()

    def __call__(self, job: Job, path: Path, *frames: Path) -> Row:
        self.load_s = 0.0
        if frames:
            source = self.reading.take(job)
            first, notes = self.make_several(job, source, path, frames)
        else:
            source, first = self.making.take(job)
            if is_small(first):
                self.making.begin_after(job, lambda next: not next.beside and self.is_new(next))
            notes = [*first.warnings, *self.put(first, path, job, self.seed(job))]
        if downloads.digests_of(job) != source.digests:
            raise ImageError("CHANGED", "the file changed while it was read; run again")
        picture = source.pictures[0]
        kind = self.kind_of(job)
        is_exact = kind in ("png", "tiff") or (kind == "webp" and self.settings.writing.lossless)
        if isinstance(self.options, InpaintOptions) and not is_exact:
            notes.append(LOSSY.format(kind))
        loaded = {"load_s": round(self.load_s, 3)} if self.load_s else {}
        return {
            **loaded,
            "size_in": picture.size,
            "size_out": first.size,
            "n_frames": source.count,
            "warnings": list(dict.fromkeys(notes)),
            **describe_maker(self.settings.made_by),
            **self.keep_views(job, source, first),
        }

    def follow(self, job: Job, following: Job | None) -> None:
        """Set the job that comes after this one, where the order was not known at the start."""
        for prefetcher in (self.making, self.reading):
            prefetcher.follow(job, following)

    def keep_views(self, job: Job, source: ReadFile, result: "Picture") -> Row:
        """Save what the page shows; return the facts on it for the row."""
        picture, facts = source.pictures[0], {}
        panels = [picture, result]
        if self.holes.find and source.mask is not None:
            panels.insert(1, draw_overlay(picture, source.mask))
            facts["damage"] = round(float((source.mask > 0).mean()), 6)
        is_aligned = result.size == picture.size or isinstance(self.options, UpscaleOptions)
        home, layers = self.settings.destination.home, map(split_alpha, panels)
        if place := views.keep(home, job.key, *layers, is_aligned=is_aligned, like=picture):
            facts["place"] = place
        return facts

    def is_new(self, job: Job) -> bool:
        """Whether the job must be done: no file is there that could be its finished result."""
        store = self.settings.destination.store
        return self.settings.exists == "overwrite" or not store.has(store.name(job.target))

    def may_read(self, job: Job) -> bool:
        """Whether to read a job ahead; no store is asked here, while the model waits."""
        return self.settings.destination.store.at_once > 1 or self.is_new(job)

    def read(self, job: Job) -> ReadFile:
        from restore.images import encode, memmap, sandbox

        if self.settings.destination.store.at_once > 1:
            self.is_new(job)  # it remembers, so that nobody waits for it later
        digests = downloads.digests_of(job)
        with memmap.use_folder(self.settings.destination.out):
            pictures, count = sandbox.read_by_rows(downloads.fetch(job), self.settings.reading)
        if self.settings.reading.frames == "all" and len(pictures) != 1 + len(job.beside):
            raise ImageError("CHANGED", "it had other frames when the run was planned; run again")
        for picture in pictures:
            size = self.options.output_size(picture.size)
            copies = self.count * getattr(self.options, "loopback", 1)
            refuse_large(size, copies, self.settings.most_pixels)
            encode.check_fits(picture, self.kind_of(job), size, self.settings.writing.background)
        masks = self.holes.read(self.masks, job, pictures)
        if self.masks and self.masks.is_alpha:  # the filled hole is opaque
            pictures = list(map(make_opaque, pictures))
        return ReadFile(pictures, count, masks, digests)

    def make_next(self, job: Job) -> "tuple[ReadFile, Picture]":
        """Read a job's source, and make the result of its first frame."""
        source = self.reading.take(job)
        if is_small(source.pictures[0]):
            self.reading.begin_after(job, self.may_read)
        self.warn(job, source.pictures[0])
        return source, self.make(source.pictures[0], source.mask, self.seed(job))

    def make(
        self,
        picture: "Picture",
        mask: "np.ndarray | None",
        seed: int,
        keep: "Callable[[int, Picture], object]" = lambda lap, frame: None,
    ) -> "Picture":
        began = time.monotonic()
        from restore.diffusion import watch
        from restore.images import memmap
        from restore.tasks.run import needed, restore

        hole = None if self.holes.find == "propose" else mask
        stack = needed(self.stack(), self.options, hole is not None)
        if not self.rate.pixels:  # the first picture of the run
            self.load_s, began = time.monotonic() - began, time.monotonic()
        watching = watch.watching(self.part, *stack.parts, on_look=looks_of(self.show))
        with memmap.use_folder(self.settings.destination.out), watching:
            made = restore(picture, self.options, stack, seed, mask=hole, on_frame=keep)
        self.rate.add(time.monotonic() - began, made.size[0] * made.size[1])
        return made

    def warn(self, job: Job, picture: "Picture") -> None:
        """Warn once of the time for a large result, before it is begun."""
        if self.is_warned or not rates.is_large(self.options.output_size(picture.size)):
            return
        self.is_warned = True
        warning = rates.warning(job.key, picture.size, self.options, self.rate.get())
        self.show.note(warning)

    def make_several(
        self, job: Job, source: ReadFile, path: Path, frames: Sequence[Path]
    ) -> "tuple[Picture, list[str]]":
        """Make frames, candidates, laps or damage; return the first result, and notes on all."""
        from restore.images.contact_sheet import write_sheet

        seed, picture = self.seed(job), source.pictures[0]
        self.warn(job, picture)
        laps: Sequence[Path] = ()
        notes: list[str] = []
        wanted = [(picture, source.mask, path, seed)]
        if self.settings.reading.frames == "all":
            items = zip(source.pictures, source.masks, (path, *frames), strict=True)
            wanted = [(*one, seed) for one in items]
        elif self.count > 1:
            seeds = [self.seed(job, nth) for nth in range(self.count)]
            items = zip(frames, seeds, strict=True)
            wanted = [(picture, source.mask, *one) for one in items]
        elif self.holes.find:
            assert source.mask is not None
            notes += self.keep_damage(picture, source.mask, job, frames)
        else:
            laps = frames

        def keep(lap: int, frame: "Picture") -> None:
            if laps:
                self.put(frame, laps[lap - 1], job, seed)

        pictures: list[Picture] = []
        for picture, mask, target, own_seed in wanted:
            result = self.make(picture, mask, own_seed, keep)
            notes += [*result.warnings, *self.put(result, target, job, own_seed)]
            pictures = pictures or [result]  # only the first: there may be many
        if self.count > 1:
            write_sheet(frames, path)
        return pictures[0], notes

    def keep_damage(
        self, picture: "Picture", mask: "np.ndarray", job: Job, frames: Sequence[Path]
    ) -> list[str]:
        """Write the mask and a picture that shows it; return notes on them."""
        from restore.images import sandbox
        from restore.images.deep_samples import grey_to_rgb
        from restore.images.picture import Picture

        sandbox.encode(Picture(grey_to_rgb(mask), grey=True), frames[0])
        sandbox.encode(draw_overlay(picture, mask), frames[1], "jpeg")
        if not mask.any():
            return []
        names = [frame.name for frame in job.frames]
        message = f"{100 * (mask > 0).mean():.2g} % looks scratched, see {names[1]}"
        if self.holes.find == "apply":
            return [f"{message}; filled as {names[0]} says"]
        return [f"{message}; nothing was filled: correct {names[0]} and give it by --damage"]

    def put(self, picture: "Picture", path: Path, job: Job, seed: int) -> list[str]:
        """Write a result; return notes on what its format could not hold."""
        from restore.images import sandbox

        is_plain = isinstance(self.options, UpscaleOptions)
        about = "" if is_plain else format_settings(self.options, seed, self.settings.made_by)
        return sandbox.encode(picture, path, self.kind_of(job), self.settings.writing, about)

    def part(self, done: int, of: int, what: str) -> None:
        if self.is_over:
            raise CancelledError("the run is over")
        self.show.part(done, of, what)

    def kind_of(self, job: Job) -> str:
        assert job.source
        return self.kind(job.source)

    def seed(self, job: Job, nth: int = 0) -> int:
        return file_seed(self.settings.seed + nth, job.key)


def refuse_large(size: tuple[int, int], copies: int, most_pixels: int) -> None:
    """Raise ImageError if results of (height, width) have more pixels than are made; 0: any."""
    height, width = size[0] * copies, size[1]
    if most_pixels and height * width > most_pixels:
        found = f"the result would have {width}x{height} pixels"
        raise ImageError(
            "TOO_LARGE", f"{found}; at most {most_pixels / 1e6:g} million are made here"
        )


def looks_of(show: Progress) -> "OnLook | None":
    """Return what looks at unfinished results, if anything does."""
    return show.look if isinstance(show, Onlooker) else None


def is_small(picture: "Picture") -> bool:
    """Whether memory is enough for another picture beside it."""
    from restore.images.sandbox import LARGE

    return picture.pixels.size <= 3 * LARGE


def split_alpha(picture: "Picture") -> "tuple[np.ndarray, np.ndarray | None]":
    """The pixels and alpha of a picture, for its thumbnail."""
    return picture.pixels, picture.alpha
