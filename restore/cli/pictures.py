"""The options of commands over files for how pictures are read and written."""

from dataclasses import dataclass
from typing import Annotated, Literal

import typer

from restore.batch.picture_options import PictureOptions

FormatName = Literal["auto", "png", "jpeg", "jpg", "webp", "avif", "tiff", "tif"]
SHORT = {"jpg": "jpeg", "tif": "tiff"}


@dataclass(frozen=True)
class Pictures:
    """The options of every command over files on its pictures; each field is an option."""

    format: Annotated[
        FormatName,
        typer.Option(
            help="auto: JPEG, WebP and AVIF as they are, others PNG. For inpaint all PNG, since "
            "what is outside the mask stays as it is, bit for bit.",
            callback=lambda name: SHORT.get(name, name),
        ),
    ] = "auto"
    quality: Annotated[
        int, typer.Option(min=1, max=100, help="Of JPEG, WebP and AVIF results.")
    ] = 95
    subsampling: Annotated[
        Literal["auto", "4:4:4", "4:2:2", "4:2:0"],
        typer.Option(help="Of the colours of JPEG and AVIF. auto: 4:4:4 from quality 90 on."),
    ] = "auto"
    lossless: Annotated[
        bool, typer.Option("--lossless", help="Lossless WebP; with auto, JPEG and AVIF become PNG.")
    ] = False
    background: Annotated[
        str | None, typer.Option(help="A colour to lay under transparency, for JPEG.")
    ] = None
    icc: Annotated[
        Literal["keep", "srgb"], typer.Option(help="Colour profiles; srgb converts to sRGB.")
    ] = "keep"
    strip: Annotated[
        Literal["nothing", "gps", "all"],
        typer.Option(help="gps: leave out where it was taken; all: EXIF, XMP, IPTC, texts."),
    ] = "nothing"
    frames: Annotated[
        Literal["first", "all", "refuse"],
        typer.Option(help="Of GIFs, pages of TIFFs, ...; all: NAME_002.png ... beside NAME.png."),
    ] = "first"
    megapixels: Annotated[
        int,
        typer.Option(
            min=134,
            max=100_000,
            help="The largest picture that is read; above 134 by upscale and img2img alone, and "
            "from JPEGs, PNGs, and TIFFs whose tiles or strips can be read one by one.",
        ),
    ] = 134
    allow_truncated: Annotated[
        bool,
        typer.Option("--allow-truncated", help="Take files that are cut short; their row says so."),
    ] = False

    @property
    def chosen(self) -> PictureOptions:
        """The same options, as `restore.batch` takes them."""
        return PictureOptions(**vars(self))
