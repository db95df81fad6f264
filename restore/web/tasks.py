"""The work of each kind of job. Files are written to its folder, facts are returned."""

import shutil
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from degradations import RecipeError, preview, recipes
from degradations.estimate import estimate, write_page
from degradations.measure import Measured
from degradations.pairs import PairSet, make
from restore import file_search
from restore.batch import folder, words
from restore.batch.holes import Holes
from restore.batch.models import OpenedModel
from restore.batch.rows import Row, results
from restore.batch.work import FileOptions
from restore.diffusion.lazy_stack import LazyStack
from restore.errors import ImageError, UsageError
from restore.files import replacing, sha256
from restore.images import sandbox
from restore.images.deep_samples import grey_to_rgb
from restore.images.picture import Picture, to_rgb8
from restore.images.worker_pool import shared_workers
from restore.web import requests
from restore.web.models import Models
from restore.web.roots import Roots
from restore.web.store import Job, Result, Store
from restore.web.views import write_view
from restore.web.worker import Watch, to_printable

if TYPE_CHECKING:
    import numpy as np

SIDE = 768  # px that a contact sheet's photo is cut from at most


@dataclass(frozen=True)
class Tasks:
    """Does jobs; called by the worker.

    Each method takes a job, its request and the watch that it reports to, and returns the fields of
    Job to set.

    Attributes:
        store: The jobs and their folders.
        models: The models that requests name.
        roots: The folders that requests name.
        most_pixels: Of a result; 0: no limit.
    """

    store: Store
    models: Models
    roots: Roots
    most_pixels: int = 0

    def prepare(self) -> None:
        """Load the default model, all of it."""
        first = requests.UpscaleRequest(model=self.models.first)
        model = self.models.open(self.models.choose(first)).stack()
        if isinstance(model, LazyStack):
            model.load()

    def carry_out(self, job: Job, watch: Watch) -> dict[str, Any]:
        """Do a job.

        Returns:
            The fields of Job to set.

        Raises:
            RestoreError: It failed; its `code` says why.
        """
        does: dict[str, Callable[[Job, Any, Watch], dict[str, Any]]] = {
            "upscale": self.upscale,
            "inpaint": self.inpaint,
            "img2img": self.img2img,
            "text2img": self.text2img,
            "batch": self.batch,
            "scratches": self.scratches,
            "sheet": self.sheet,
            "pairs": self.pairs,
            "estimate": self.estimate,
        }
        place = self.store.folder_of(job.id)
        uploads = (place / name for name in ("in", "mask", "control"))
        with self.roots.hiding_paths(), self.models.hiding_paths(*uploads):
            return does[job.request.kind](job, job.request, watch)

    def _model(self, job: Job, given: requests.TaskRequest) -> OpenedModel:
        image = self.store.folder_of(job.id) / "control" / job.control if job.control else None
        return self.models.open(self.models.choose(given, image))

    def upscale(self, job: Job, given: requests.UpscaleRequest, watch: Watch) -> dict[str, Any]:
        """Enlarge or restore a picture."""
        holes = Holes(self._mask(job), given.fit_mask, given.find_scratches)
        return self._file(job, given, given.upscale, holes, watch)

    def inpaint(self, job: Job, given: requests.InpaintRequest, watch: Watch) -> dict[str, Any]:
        """Fill a hole in a picture, or paint beyond its sides."""
        holes = Holes(self._mask(job), given.fit_mask)
        return self._file(job, given, given.inpaint, holes, watch, given.count)

    def img2img(self, job: Job, given: requests.Img2imgRequest, watch: Watch) -> dict[str, Any]:
        """Make a picture anew from itself and words."""
        return self._file(job, given, given.img2img, Holes(), watch)

    def _mask(self, job: Job) -> str:
        return str(self.store.folder_of(job.id) / "mask" / job.mask) if job.mask else ""

    def _file(
        self,
        job: Job,
        given: Any,
        options: FileOptions,
        holes: Holes,
        watch: Watch,
        count: int = 1,
    ) -> dict[str, Any]:
        """Work on one upload as the command line does on one file; the bytes are the same."""
        job_folder = self.store.folder_of(job.id)
        source, out = job_folder / "in" / job.uploads[0], job_folder / "out"
        folder.run(
            file_search.find([source], out),
            options,
            out,
            self._model(job, given),
            pictures=given.pictures,
            holes=holes,
            seed=given.seed,
            count=count,
            most_pixels=self.most_pixels,
            show=watch,
        )
        watch.check()
        row = first_row(watch)
        views = write_view(source, job_folder / "view" / "before.jpg")
        names = list(results(row))  # of several candidates the first is the sheet of them all
        views += write_view(out / names[count > 1], job_folder / "view" / "after.jpg")
        return {**self._describe_results(job, names), **summarize_row(row, watch), "views": views}

    def text2img(self, job: Job, given: requests.Text2imgRequest, watch: Watch) -> dict[str, Any]:
        """Make pictures from words."""
        folder = self.store.folder_of(job.id)
        model = self._model(job, given)
        words.run_words(
            given.text2img, folder / "out", model, seed=given.seed, count=given.count, show=watch
        )
        watch.check()
        made = [name for row in watch.rows for name in results(row)]
        row = first_row(watch)
        views = write_view(folder / "out" / row["output"], folder / "view" / "after.jpg")
        return {**self._describe_results(job, made), **summarize_row(row, watch), "views": views}

    def batch(self, job: Job, given: requests.BatchRequest, watch: Watch) -> dict[str, Any]:
        """Work on a folder, with a journal and a report, as the command line does."""
        source = self.roots.find(given.root, given.folder)
        out = self.roots.find(given.root, given.out, is_new=True)
        files = file_search.find([source], out)
        watch.start_tally(len(files))
        summary = folder.run(
            files,
            given.options,
            out,
            self._model(job, given),
            pictures=given.pictures,
            holes=Holes(find=given.find_scratches),
            seed=given.seed,
            most_pixels=self.most_pixels,
            show=watch,
            stop=watch.stop_reason,
        )
        watch.check()
        counts = {name: getattr(summary, name) for name in ("done", "finished", "failed")}
        notes = [", ".join(f"{count} {name}" for name, count in counts.items() if count)]
        return {"warnings": [*watch.notes, *notes]}

    def scratches(self, job: Job, given: requests.ScratchesRequest, watch: Watch) -> dict[str, Any]:
        """Make a mask of what looks scratched."""
        from restore.images import scratches  # torch, seconds

        folder = self.store.folder_of(job.id)
        source = folder / "in" / job.uploads[0]
        picture = sandbox.read(source)
        watch.check()
        mask = scratches.find(picture)
        path = folder / "out" / "damage.png"
        path.parent.mkdir(exist_ok=True)
        with replacing(path) as temporary:
            sandbox.encode(Picture(grey_to_rgb(mask), grey=True), temporary)
        views = write_view(source, folder / "view" / "before.jpg")
        return {**self._describe_results(job, [path.name]), "size_in": picture.size, "views": views}

    def sheet(self, job: Job, given: requests.SheetRequest, watch: Watch) -> dict[str, Any]:
        """Make a contact sheet of what a recipe does to pictures."""
        place = self.store.folder_of(job.id)
        recipe = _recipe(given).at(given.severity)
        crop, photos = min(given.crop, SIDE), {}
        for name in job.uploads:
            watch.check()
            photos[name] = preview.middle(_photo(place / "in" / name), crop)
        seeds = range(given.seed, given.seed + given.columns)
        path = place / "out" / "sheet.png"
        path.parent.mkdir(exist_ok=True)
        with _refusals():
            rows = preview.rows(photos, recipe, seeds, given.scale, crop, watch.check)
            watch.check()
            with replacing(path) as temporary:
                preview.write_png(rows, recipe, temporary)
        return self._describe_results(job, [path.name])

    def pairs(self, job: Job, given: requests.PairsRequest, watch: Watch) -> dict[str, Any]:
        """Make training pairs as `restore degrade apply` does, in one archive."""
        folder = self.store.folder_of(job.id)
        pairs, archive_path = folder / "pairs", folder / "out" / "pairs.zip"
        photos = {name: folder / "in" / name for name in job.uploads}
        pair_set = PairSet(given.recipe, given.seed, given.scale, given.crop, given.severity)
        done = 0

        def show(more: int) -> None:
            nonlocal done
            done += more
            watch.part(done, given.pairs, "pairs")

        with _refusals():
            summary = make(photos, pair_set, pairs, given.pairs, _photo, show=show)
        archive_path.parent.mkdir(exist_ok=True)
        files = sorted(path for path in pairs.rglob("*") if path.is_file())
        with replacing(archive_path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
            for path in files:
                if not path.name.startswith("."):
                    archive.write(path, path.relative_to(pairs))
        shutil.rmtree(pairs)
        refused = [f"{name}: {why}" for name, why in sorted(summary.refused.items())]
        return {**self._describe_results(job, [archive_path.name]), "warnings": refused}

    def estimate(self, job: Job, given: requests.EstimateRequest, watch: Watch) -> dict[str, Any]:
        """Fit a recipe to photos, and write a page on how well it fits."""
        place = self.store.folder_of(job.id)
        recipe, page = place / "out" / f"{given.name}.yaml", place / "out" / f"{given.name}.html"
        recipe.parent.mkdir(exist_ok=True)
        with _refusals():
            photos = [place / "in" / name for name in job.uploads]
            found = estimate(photos, given.name, check=watch.check, call=_apart)
            watch.check()
            with replacing(recipe) as temporary:
                found.save(temporary)
            with replacing(page) as temporary:
                write_page(found, temporary)
        refused = [f"{Path(path).name}: {why}" for path, why in found.refused]
        return {**self._describe_results(job, [recipe.name, page.name]), "warnings": refused}

    def _describe_results(self, job: Job, names: Iterable[str]) -> dict[str, Any]:
        out = self.store.folder_of(job.id) / "out"
        made = [
            Result(name=name, bytes=(out / name).stat().st_size, sha256=sha256(out / name))
            for name in names
        ]
        return {"results": made}


def first_row(watch: Watch) -> Row:
    """Return the first row of the report.

    Raises:
        ImageError: The picture failed.
    """
    row = watch.rows[0]
    if row["status"] != "done":
        raise ImageError(row.get("code", "FAILED"), row.get("error", "not made"))
    return row


def summarize_row(row: Row, watch: Watch) -> dict[str, Any]:
    """Return the sizes and warnings of a row as fields of Job."""
    sizes = {name: tuple(row[name]) for name in ("size_in", "size_out") if name in row}
    return {**sizes, "warnings": [*watch.notes, *map(to_printable, row.get("warnings", []))]}


def _recipe(given: requests.RecipeRequest) -> Any:
    with _refusals():
        return recipes.named(given.recipe)


def _photo(path: Path) -> "np.ndarray":
    """Read a picture as uint8 (H, W, 3), in a worker process."""
    return to_rgb8(sandbox.read(path))


def _apart(function: Callable[[Path], Measured | str], path: Path) -> Measured | str:
    """Measure a photo in a worker process; returns why it cannot be, if its decoder dies."""
    try:
        return shared_workers().call(sandbox.PATIENCE_S, function, path)
    except ImageError as error:
        return str(error)


@contextmanager
def _refusals() -> Iterator[None]:
    """Turn errors of a recipe or its photos into errors of the request."""
    try:
        yield
    except RecipeError as error:
        raise UsageError(str(error)) from error
