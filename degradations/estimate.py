"""A folder of real photos -> a recipe that makes pictures like them, and a page that shows it.

found = estimate(paths, name="mine")
found.save("mine.yaml")
write_page(found, "mine.html")
"""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from degradations import fit, fit_report
from degradations.errors import RecipeError, counted
from degradations.measure import Measured, measure
from degradations.pipeline import Recipe

Call = Callable[[Callable[[Path], Measured | str], Path], Measured | str]


@dataclass(frozen=True)
class Estimate:
    """Measured photos and the recipe that was fitted to them."""

    photos: list[Measured]
    """The measured photos, in the order given."""
    refused: list[tuple[str, str]]
    """(path, reason) of each file that could not be measured."""
    recipe: Recipe
    """The recipe that was fitted to the photos."""

    def save(self, path: str | Path) -> None:
        """Write the recipe as YAML; comments at its head say what it was measured on."""
        jpegs = sum(photo.quality is not None for photo in self.photos)
        counts = {
            "noise": sum(photo.noise is not None for photo in self.photos),
            "blur": sum(photo.blur is not None for photo in self.photos),
            "an earlier JPEG": sum(photo.earlier_quality is not None for photo in self.photos),
            "enlargement": sum(photo.enlarged is not None for photo in self.photos),
        }
        self.recipe.save(
            path,
            f"Measured on {counted(len(self.photos), 'photo')}, {jpegs} of them JPEG; "
            f"{counted(len(self.refused), 'file')} could not be used.",
            "Told in so many of them: " + ", ".join(f"{k} {v}" for k, v in counts.items()) + ".",
        )


def estimate(
    paths: Iterable[str | Path],
    name: str = "mine",
    workers: int = 1,
    check: Callable[[], object] = lambda: None,
    call: Call = lambda function, path: function(path),
) -> Estimate:
    """Measure each photo, then fit a recipe. Files that cannot be measured are refused with a
    reason.

    Args:
        paths: The photos.
        name: Name of the recipe.
        workers: Processes that measure; 1 measures in this one.
        check: Called before each photo that this process measures; what it raises ends the work.
        call: Calls the function on a path where `workers` is 1, such as in another process.

    Raises:
        RecipeError: If no photo could be measured.
    """
    paths = [Path(path) for path in paths]
    if not paths:
        raise RecipeError("no photos to measure; give a folder of the photos to be restored")
    results = _all(paths, workers, check, call)
    pairs = list(zip(paths, results, strict=True))
    photos = [result for result in results if isinstance(result, Measured)]
    refused = [(str(path), result) for path, result in pairs if isinstance(result, str)]
    if not photos:
        first = ": ".join(refused[0])
        raise RecipeError(
            f"none of {len(paths)} files could be measured, the first for this: {first}"
        )
    return Estimate(photos, refused, fit.recipe_of(photos, name))


def write_page(
    found: Estimate, path: str | Path, seed: int = 0, clean: Iterable[str | Path] = ()
) -> None:
    """Write an HTML page that compares the photos with pictures that the recipe makes.

    Args:
        found: What `estimate` returns.
        path: The page.
        seed: Seed of the simulated pictures.
        clean: Good photos to degrade; without them the measured photos, made much smaller, are
            degraded.
    """
    good = [Path(photo) for photo in clean]
    simulated = fit_report.simulate(found.photos, found.recipe, seed, good)
    fit_report.page(found.photos, found.refused, found.recipe, simulated).write(Path(path))


def _all(
    paths: Sequence[Path], workers: int, check: Callable[[], object], call: Call
) -> list[Measured | str]:
    if workers <= 1:
        results = []
        for path in paths:
            check()
            results.append(call(_one, path))
        return results
    chunk = max(1, min(16, len(paths) // (4 * workers)))
    try:
        with _pool(min(workers, len(paths))) as pool:
            return list(pool.map(_one, paths, chunksize=chunk))
    except BrokenProcessPool:  # a decoder died, or the system ended it: which file was it?
        return [_apart(path) for path in paths]


def _pool(workers: int) -> ProcessPoolExecutor:
    # spawned: a fork of a process with OpenCV's or torch's threads may hang
    return ProcessPoolExecutor(workers, get_context("spawn"))


def _apart(path: Path) -> Measured | str:
    """One file in a process of its own."""
    with _pool(1) as pool:
        try:
            return pool.submit(_one, path).result()
        except BrokenProcessPool:
            return "the process that read it died; convert it, or make it smaller"


def _one(path: Path) -> Measured | str:
    try:
        return measure(path)
    except RecipeError as error:
        return str(error).removeprefix(f"{path}: ")
    except Exception as error:  # a bad file must not cost the others
        return f"{type(error).__name__}: {error}"
