"""Named recipes, each with its paper; configs/degradations/ holds the same as YAML."""

from math import pi

from degradations.errors import RecipeError
from degradations.ops import (
    Blur,
    GaussianNoise,
    Jpeg,
    Maybe,
    OneOf,
    PoissonNoise,
    Resize,
    Sequence,
    Sinc,
    Step,
)
from degradations.pipeline import Recipe, mend
from degradations.ranges import Choice, Uniform


def _blur(sigma: Uniform) -> OneOf:
    """Nine in ten of the Gaussian family, else sinc, its cutoff lower where the kernel is large."""
    small, large = (7, 9, 11), (13, 15, 17, 19, 21)
    return OneOf(
        steps=(
            Blur(sigma=sigma),
            Sinc(size=Choice(small), cutoff=Uniform(pi / 3, pi)),
            Sinc(size=Choice(large), cutoff=Uniform(pi / 5, pi)),
        ),
        weights=(0.9, 0.0375, 0.0625),
    )


def _noise(sigma_levels: Uniform, scale: Uniform) -> OneOf:
    return OneOf(steps=(GaussianNoise(sigma_levels=sigma_levels), PoissonNoise(scale=scale)))


def _factor(low: float, high: float, up: float, down: float) -> Choice:
    return Choice((Uniform(1, high), Uniform(low, 1), 1), (up, down, round(1 - up - down, 6)))


def _ending(quality: Uniform) -> OneOf:
    """Resize to the target, with or without ringing, before or after the last JPEG."""
    resized: tuple[Step, ...] = (Resize(of="target"), Maybe(p=0.8, step=Sinc()))
    jpeg = Jpeg(quality=quality)
    return OneOf(steps=(Sequence(steps=(*resized, jpeg)), Sequence(steps=(jpeg, *resized))))


def realesrgan() -> Recipe:
    """Two passes of blur, resize, noise and JPEG, with what was faulty in the code mended."""
    return Recipe(
        name="realesrgan",
        paper="Wang et al. 2021, Real-ESRGAN, arXiv:2107.10833",
        steps=(
            _blur(Uniform(0.2, 3)),
            Resize(factor=_factor(0.15, 1.5, 0.2, 0.7)),
            _noise(Uniform(1, 30), Uniform(0.05, 3)),
            Jpeg(quality=Uniform(30, 95)),
            Maybe(p=0.8, step=_blur(Uniform(0.2, 1.5))),
            Resize(of="target", factor=_factor(0.3, 1.2, 0.3, 0.4)),
            _noise(Uniform(1, 25), Uniform(0.05, 2.5)),
            _ending(Uniform(30, 95)),
        ),
    )


def stablesr_light() -> Recipe:
    """Real-ESRGAN's order with milder ranges, for pictures that are bad rather than ruined."""
    return Recipe(
        name="stablesr_light",
        paper="Wang et al. 2023, StableSR, arXiv:2305.07015",
        steps=(
            _blur(Uniform(0.2, 3)),
            Resize(factor=_factor(0.3, 1.5, 0.2, 0.7)),
            _noise(Uniform(1, 15), Uniform(0.05, 2)),
            Jpeg(quality=Uniform(60, 95)),
            Maybe(p=0.5, step=_blur(Uniform(0.2, 1.5))),
            Resize(of="target", factor=_factor(0.6, 1.2, 0.3, 0.4)),
            _noise(Uniform(1, 12), Uniform(0.05, 1)),
            _ending(Uniform(60, 100)),
        ),
    )


def clean_bicubic() -> Recipe:
    """Antialiased bicubic and nothing else: the classical benchmark's degradation."""
    return Recipe(
        name="clean_bicubic",
        paper="Timofte et al. 2017, NTIRE challenge on single image super-resolution",
        steps=(Resize(of="target", mode=Choice(("bicubic",))),),
    )


NAMED = {make.__name__: make for make in (realesrgan, stablesr_light, clean_bicubic)}


def named(name: str) -> Recipe:
    """Raises RecipeError for a name that is none of NAMED."""
    if name in NAMED:
        return NAMED[name]()
    raise RecipeError(f"no recipe is called {name!r}; {mend(name, NAMED)}")
