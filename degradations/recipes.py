"""Named recipes: the published ones, each with its paper, and those of `real_world`.

configs/degradations/ holds the same as YAML.
"""

from collections.abc import Callable
from collections.abc import Sequence as SequenceOf
from itertools import pairwise
from math import pi, sqrt
from pathlib import Path

from degradations import real_world
from degradations.errors import RecipeError, mend
from degradations.ops import (
    Blur,
    CompatJpeg,
    CompatPoissonNoise,
    CompatResize,
    CompatSinc,
    GaussianNoise,
    Jpeg,
    Maybe,
    OneOf,
    PoissonNoise,
    Resize,
    Sequence,
    Shuffle,
    Sinc,
    Step,
)
from degradations.ops.blur import ALL_SIZES
from degradations.pipeline import Recipe
from degradations.ranges import Choice, Uniform


def _blur(
    sigma: Uniform, sinc: type[Sinc] | type[CompatSinc] = Sinc, blur: Blur | None = None
) -> OneOf:
    """Nine in ten of the Gaussian family, else sinc, its cutoff lower where the kernel is large."""
    small, large = (7, 9, 11), (13, 15, 17, 19, 21)
    return OneOf(
        steps=(
            (blur or Blur()).model_copy(update={"sigma": sigma}),
            sinc(size=Choice(small), cutoff=Uniform(pi / 3, pi)),
            sinc(size=Choice(large), cutoff=Uniform(pi / 5, pi)),
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
    """Two passes of blur, resize, noise and JPEG, with what was faulty in the code mended.

    The good picture is not sharpened first, as it is there: `sharpen: true` does that.
    """
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
    """Real-ESRGAN's order with milder ranges, for pictures that are bad rather than ruined.

    The numbers are those of StableSR's v2-finetune_text_T_512.yaml. Beside that code: faults are
    mended as in `realesrgan`; the good picture is not sharpened first (use_usm); and one pair in a
    hundred there is not degraded at all (no_degradation_prob), not even made smaller.
    """
    blur = Blur(
        beta_generalised=Choice((Uniform(0.5, 1), Uniform(1, 2))),
        beta_plateau=Choice((1, Uniform(1, 1.5))),
    )
    return Recipe(
        name="stablesr_light",
        paper="Wang et al. 2023, StableSR, arXiv:2305.07015",
        steps=(
            _blur(Uniform(0.2, 1.5), blur=blur),
            Resize(factor=_factor(0.3, 1.5, 0.2, 0.7)),
            _noise(Uniform(1, 15), Uniform(0.05, 2)),
            Jpeg(quality=Uniform(60, 95)),
            Maybe(p=0.5, step=_blur(Uniform(0.2, 1), blur=blur)),
            Resize(of="target", factor=_factor(0.6, 1.2, 0.3, 0.4)),
            _noise(Uniform(1, 12), Uniform(0.05, 1)),
            _ending(Uniform(60, 100)),
        ),
    )


def realesrgan_compat() -> Recipe:
    """Real-ESRGAN x4plus as published, its faults included, for fair comparison at scale 4.

    Reproduced: resizing without antialias that drops the fraction of the size, sinc without a
    window, Poisson levels from the picture's distinct values, a JPEG with the luma table
    transposed, black padding and replicated chroma, sharpened ground truth.
    Not reproduced, because a sample here is its own: one draw of the resize factor, mode, noise
    kind, second blur and final order for a whole batch, one field of grey Gaussian noise for a
    whole batch, and the pool of 180 pairs.
    """
    noises = (
        OneOf(
            steps=(GaussianNoise(sigma_levels=Uniform(1, sigma)), CompatPoissonNoise(scale=scale))
        )
        for sigma, scale in ((30, Uniform(0.05, 3)), (25, Uniform(0.05, 2.5)))
    )
    final: tuple[Step, ...] = (CompatResize(of="target"), Maybe(p=0.8, step=CompatSinc()))
    orders = (*final, CompatJpeg()), (CompatJpeg(), *final)
    return Recipe(
        name="realesrgan_compat",
        paper="Wang et al. 2021, Real-ESRGAN, arXiv:2107.10833, as its code does it",
        sharpen=True,
        steps=(
            _blur(Uniform(0.2, 3), CompatSinc),
            CompatResize(factor=_factor(0.15, 1.5, 0.2, 0.7)),
            next(noises),
            CompatJpeg(),
            Maybe(p=0.8, step=_blur(Uniform(0.2, 1.5), CompatSinc)),
            CompatResize(of="target", factor=_factor(0.3, 1.2, 0.3, 0.4)),
            next(noises),
            OneOf(steps=tuple(Sequence(steps=order) for order in orders)),
        ),
    )


def _pieces(ends: SequenceOf[float], to: Callable[[float], float]) -> Choice:
    """As to(u) for a uniform u: in pieces, each as likely and uniform within."""
    made = [sorted((round(to(a), 4), round(to(b), 4))) for a, b in pairwise(ends)]
    shares = tuple(b - a for a, b in pairwise(ends))
    return Choice(tuple(Uniform(*ends) for ends in made), shares)


def _bsrgan_shuffle(scale: int) -> Shuffle:
    """The shuffled steps of BSRGAN on the way to a picture that is `scale` times smaller."""
    modes, sizes = Choice(("bilinear", "bicubic", "area")), Choice(ALL_SIZES)
    isotropic = Choice(("isotropic",))
    variances = 0, 0.125, 0.5, *range(1, 4 + scale + 1)  # of each axis, uniform
    blur = OneOf(
        steps=(
            Blur(shape=Choice(("anisotropic",)), size=sizes, sigma=_pieces(variances, sqrt)),
            Blur(shape=isotropic, size=sizes, sigma=Uniform(0, round(2 + 0.2 * scale, 6))),
        )
    )
    thinned = (
        Blur(shape=isotropic, size=Choice((25,)), sigma=Uniform(0.1, round(0.6 * scale, 6))),
        Resize(factor=Uniform(1 / scale, 1 / scale), mode=Choice(("bilinear",)), antialias=False),
    )
    divisors = 1, 1.25, 1.5, *range(2, 2 * scale + 1)  # of the size, uniform
    shrunk = Resize(factor=_pieces(divisors, lambda n: 1 / n), mode=modes, antialias=False)
    steps = (
        blur,
        blur,
        OneOf(steps=(shrunk, Sequence(steps=thinned)), weights=(3, 1)),
        Resize(of="target", mode=modes, antialias=False),
        GaussianNoise(sigma_levels=Uniform(2, 25)),
        Maybe(p=0.9, step=Jpeg()),
    )
    return Shuffle(steps=steps, keep=(2, 3))


def bsrgan() -> Recipe:
    """Shuffled blurs, downscales, noise and JPEG, then a last JPEG; for scale 4.

    One picture in four is halved first; the steps after that are those of scale 2. Where the code
    draws the variance of an axis or the divisor of a size, the range is cut in pieces, each as
    likely as there. Beside the released code: without the camera ISP (1 in 4), whose model was
    never released; levels of noise are not whole numbers; one noise in five there has correlated
    channels, always of level 25, and is colour noise of any level here. There subsampling by the
    nearest pixel shifts, and a kernel shifted by linear interpolation makes up for it: together
    that is bilinear without antialias.
    """
    halves = (
        Resize(
            factor=Uniform(0.5, 0.5),
            mode=Choice(("bilinear", "bicubic", "area")),
            antialias=False,
        ),
        Resize(factor=Uniform(0.5, 0.5), mode=Choice(("bicubic",))),
    )
    halved = Sequence(steps=(OneOf(steps=halves), _bsrgan_shuffle(2)))
    return Recipe(
        name="bsrgan",
        paper="Zhang et al. 2021, BSRGAN, arXiv:2103.14006",
        steps=(
            OneOf(steps=(_bsrgan_shuffle(4), halved), weights=(3, 1)),
            Resize(of="target"),
            Jpeg(),
        ),
    )


def clean_bicubic() -> Recipe:
    """Antialiased bicubic and nothing else: the classical benchmark's degradation."""
    return Recipe(
        name="clean_bicubic",
        paper="Timofte et al. 2017, NTIRE challenge on single image super-resolution",
        steps=(Resize(of="target", mode=Choice(("bicubic",))),),
    )


_PUBLISHED = (realesrgan, realesrgan_compat, bsrgan, stablesr_light, clean_bicubic)
NAMED = {make.__name__: make for make in (*_PUBLISHED, *real_world.ALL)}


def named(name: str) -> Recipe:
    """The recipe of that name.

    Raises:
        RecipeError: If the name is none of NAMED.
    """
    if name in NAMED:
        return NAMED[name]()
    raise RecipeError(f"no recipe is called {name!r}; {mend(name, NAMED)}")


def find(word: str) -> Recipe:
    """The recipe of that name, or in that YAML file.

    Raises:
        RecipeError: If there is none, or the file cannot be used.
    """
    path = Path(word)
    if word in NAMED or not (path.suffix or path.exists()):
        return named(word)
    return Recipe.load(path)
