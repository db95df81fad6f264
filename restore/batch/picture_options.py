"""How a run over files reads and writes pictures: the same options for every caller."""

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from restore.config import Options
from restore.errors import UsageError

if TYPE_CHECKING:  # cv2 is slow to load: the cheap checks come first
    from restore.images.encode import Writing
    from restore.images.picture import Reading

FormatName = Literal["auto", "png", "jpeg", "webp", "avif", "tiff"]
HEEDED = {  # options -> the formats in which they change a result
    "quality": ("jpeg", "webp", "avif"),
    "subsampling": ("jpeg", "avif"),
    "background": ("jpeg",),
}


class PictureOptions(Options):
    """How pictures are read and written. Every command has options of the same names."""

    format: FormatName = "auto"
    """Format of the results; auto keeps JPEG, WebP and AVIF and makes PNG of others."""
    quality: int = Field(default=95, ge=1, le=100)
    """Quality of JPEG, WebP and AVIF."""
    subsampling: Literal["auto", "4:4:4", "4:2:2", "4:2:0"] = "auto"
    """Chroma subsampling of JPEG, WebP and AVIF."""
    lossless: bool = False
    """Write lossless files: WebP stays WebP, auto makes PNG of JPEG and AVIF."""
    background: str | None = None
    """Colour that is put under transparency where the result is a JPEG."""
    icc: Literal["keep", "srgb"] = "keep"
    """Keep the colour profile, or convert to sRGB."""
    strip: Literal["nothing", "gps", "all"] = "nothing"
    """Metadata that is left out."""
    frames: Literal["first", "all", "refuse"] = "first"
    """What is done with a file of several frames."""
    megapixels: int = Field(default=134, ge=134, le=100_000)
    """Size of the largest picture that is read."""
    allow_truncated: bool = False
    """Read what there is of a file that is cut off."""

    @property
    def reading(self) -> "Reading":
        """How pictures are read."""
        from restore.images.decode import MAX_PIXELS
        from restore.images.picture import Reading

        most = max(MAX_PIXELS, self.megapixels * 10**6)
        return Reading(self.frames, self.icc, self.strip, self.allow_truncated, most)

    @property
    def writing(self) -> "Writing":
        """How results are written.

        Raises:
            UsageError: The background is not a colour.
        """
        from restore.images.encode import Writing

        return Writing(self.quality, _colour(self.background), self.subsampling, self.lossless)

    def without_effect(self, form: str) -> list[str]:
        """The options that were set and change no result in this format; none for auto."""
        return [
            name
            for name, formats in HEEDED.items()
            if form not in ("auto", *formats)
            and getattr(self, name) != PictureOptions.model_fields[name].default
        ]

    def digest_fields(self, form: str) -> dict[str, Any]:
        """The options that decide the results, as they enter the digest of a run.

        Newer options enter only if they differ from their defaults, so that older digests stay
        valid.

        Args:
            form: The format of all results; auto if it differs from one to the next.
        """
        moot = {name: PictureOptions.model_fields[name].default for name in HEEDED}
        moot = {name: moot[name] for name in self.without_effect(form)}
        fields = self.model_dump(exclude={"allow_truncated", "megapixels"}) | moot
        if self.frames == "refuse":  # a file with one frame gives the same result
            fields["frames"] = "first"
        for name in ("subsampling", "lossless", "icc", "strip", "frames"):
            if fields[name] == PictureOptions.model_fields[name].default:
                del fields[name]
        return {**fields, "background": _colour(fields["background"])}


def _colour(name: str | None) -> tuple[int, int, int] | None:
    from PIL import ImageColor

    try:
        return ImageColor.getrgb(name)[:3] if name else None
    except ValueError as error:
        mend = "write a name such as white, or #rrggbb"
        raise UsageError(f"--background {name}: is no colour; {mend}") from error
