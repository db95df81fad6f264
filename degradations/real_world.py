"""Recipes for real sources: a phone, social networks, old prints, scans, video."""

from degradations.ops import (
    H264,
    Avif,
    Banding,
    Cast,
    ChromaShift,
    Defocus,
    Dust,
    Fade,
    FilmGrain,
    Folds,
    Halftone,
    Jpeg,
    Maybe,
    MotionBlur,
    OneOf,
    Repeat,
    Resize,
    ScanLines,
    Scratches,
    SensorNoise,
    Sequence,
    Sharpen,
    Shuffle,
    Stains,
    WebP,
)
from degradations.ops.blur import Blur
from degradations.pipeline import Recipe
from degradations.ranges import Choice, LogUniform, Uniform

_BOTH = Choice(("4:2:0", "4:4:4"), (3, 1))


def phone() -> Recipe:
    """A phone's camera: a small lens, a shaky hand, a sensor short of light, an eager ISP."""
    return Recipe(
        name="phone",
        paper="Brooks et al. 2019, Unprocessing Images for Learned Raw Denoising, arXiv:1811.11127",
        steps=(
            OneOf(
                steps=(
                    Blur(sigma=Uniform(0.3, 2)),
                    MotionBlur(length=Uniform(2, 12)),
                    Defocus(radius=Uniform(0.5, 3)),
                ),
                weights=(2, 1, 1),
            ),
            Resize(of="target", factor=Uniform(1, 1.5), mode=Choice(("area", "bicubic"))),
            SensorNoise(),
            Maybe(p=0.3, step=Blur(sigma=Uniform(0.3, 0.8))),  # its denoiser
            Maybe(p=0.8, step=Sharpen(amount=Uniform(0.3, 1.2), radius=Uniform(0.5, 1.5))),
            Resize(of="target"),
            Jpeg(quality=Uniform(70, 97)),
        ),
    )


def web_reupload() -> Recipe:
    """What a social network does to an upload, and again to what was saved from it."""
    modes = Choice(("area", "bilinear", "bicubic", "lanczos"))
    codec = OneOf(
        steps=(
            Jpeg(quality=Uniform(60, 92)),
            WebP(quality=Uniform(55, 90)),
            Avif(quality=Uniform(45, 85)),
        ),
        weights=(7, 2, 1),
    )
    upload = (
        Resize(factor=Uniform(0.5, 1), mode=modes),
        Maybe(p=0.5, step=Sharpen(amount=Uniform(0.2, 1), radius=Uniform(0.4, 1))),
        codec,
    )
    return Recipe(
        name="web_reupload",
        paper="Wu et al. 2022, Robust Image Forgery Detection over Online Social Network Shared "
        "Images, CVPR: resizing, enhancement and JPEG",
        steps=(Repeat(steps=upload, n=Uniform(2, 2)), Resize(of="target", mode=modes), codec),
    )


def old_photo() -> Recipe:
    """A print from a shoe box: soft, grainy, faded, and damaged; it has a damage mask."""
    return Recipe(
        name="old_photo",
        paper="Wan et al. 2020, Bringing Old Photos Back to Life, arXiv:2004.09484",
        steps=(
            Blur(sigma=Uniform(0.5, 3)),
            Resize(of="target", factor=Uniform(1, 2), mode=Choice(("area",))),
            FilmGrain(),
            Fade(),
            Maybe(p=0.7, step=Cast(blue=Uniform(0.6, 1))),
            Shuffle(
                steps=(
                    Maybe(p=0.7, step=Scratches()),
                    Maybe(p=0.7, step=Dust()),
                    Maybe(p=0.3, step=Folds()),
                    Maybe(p=0.3, step=Stains()),
                )
            ),
            Blur(sigma=Uniform(0.2, 0.8)),  # the scanner's
            Resize(of="target"),
            Jpeg(quality=Uniform(60, 95)),
        ),
    )


def scan() -> Recipe:
    """A printed page on a flat-bed scanner: dots of ink, moire where they are made smaller."""
    return Recipe(
        name="scan",
        paper="Kim and Park 2018, Deep Context-Aware Descreening and Rescreening, ACM TOG 37",
        steps=(
            Resize(of="target", factor=Uniform(1, 2), mode=Choice(("area", "bicubic"))),
            Halftone(period=Uniform(2.5, 6)),
            Blur(sigma=Uniform(0.4, 1.5)),
            Maybe(p=0.5, step=Cast(red=Uniform(0.95, 1.1), blue=Uniform(0.85, 1))),
            Maybe(p=0.3, step=ChromaShift(x=Uniform(-1, 1))),
            Maybe(p=0.5, step=Dust(count=Uniform(2, 20))),
            Resize(of="target"),
            Maybe(p=0.5, step=Sharpen(amount=Uniform(0.3, 1))),
            Jpeg(quality=Uniform(60, 95), chroma=_BOTH),
        ),
    )


def video() -> Recipe:
    """A still from a video, digital or from tape; needs the extra `video`."""
    tape = (
        Blur(shape=Choice(("anisotropic",)), sigma=Uniform(0.3, 1.5)),
        ChromaShift(),
        SensorNoise(shot=LogUniform(1e-3, 0.012)),
        Maybe(p=0.3, step=ScanLines(strength=Uniform(0.05, 0.3))),
    )
    digital = (
        OneOf(steps=(MotionBlur(length=Uniform(2, 20)), Blur(sigma=Uniform(0.2, 2)))),
        Maybe(p=0.2, step=Banding(bits=Uniform(5, 7))),
    )
    return Recipe(
        name="video",
        paper="Chan et al. 2022, RealBasicVSR, arXiv:2111.12704: Real-ESRGAN's order, video codec",
        steps=(
            Resize(of="target", factor=Uniform(0.7, 1.5)),
            OneOf(steps=(Sequence(steps=digital), Sequence(steps=tape)), weights=(2, 1)),
            H264(),
            Resize(of="target"),
        ),
    )


ALL = (phone, web_reupload, old_photo, scan, video)
