"""What a run over files is told about pictures, whoever asks for it."""

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from restore.config import Options
from restore.errors import UsageError

if TYPE_CHECKING:  # cv2 loads after all that can be refused was
    from restore.images.encode import Writing
    from restore.images.picture import Reading

FormatName = Literal["auto", "png", "jpeg", "webp", "avif", "tiff"]


class PictureOptions(Options):
    """How pictures are read and written; as the options of the same names of every command."""

    format: FormatName = "auto"  # JPEG, WebP and AVIF as they are, others PNG
    quality: int = Field(default=95, ge=1, le=100)  # of JPEG, WebP and AVIF
    subsampling: Literal["auto", "4:4:4", "4:2:2", "4:2:0"] = "auto"
    lossless: bool = False  # of WebP; auto makes PNG of JPEG and AVIF
    background: str | None = None  # a colour laid under transparency, for JPEG
    icc: Literal["keep", "srgb"] = "keep"
    strip: Literal["nothing", "gps", "all"] = "nothing"
    frames: Literal["first", "all", "refuse"] = "first"
    megapixels: int = Field(default=134, ge=134, le=100_000)  # the largest picture that is read
    allow_truncated: bool = False

    @property
    def reading(self) -> "Reading":
        from restore.images.decode import MAX_PIXELS
        from restore.images.picture import Reading

        most = max(MAX_PIXELS, self.megapixels * 10**6)
        return Reading(self.frames, self.icc, self.strip, self.allow_truncated, most)

    @property
    def writing(self) -> "Writing":
        """Raises UsageError if the background is no colour."""
        from restore.images.encode import Writing

        return Writing(self.quality, _colour(self.background), self.subsampling, self.lossless)

    @property
    def told(self) -> dict[str, Any]:
        """What of this decides the results; options that came later, where they are not default."""
        told = self.model_dump(exclude={"allow_truncated", "megapixels"})
        if self.frames == "refuse":  # those with one frame are the same
            told["frames"] = "first"
        for name in ("subsampling", "lossless", "icc", "strip", "frames"):
            if told[name] == PictureOptions.model_fields[name].default:
                del told[name]
        return {**told, "background": self.writing.background}


def _colour(name: str | None) -> tuple[int, int, int] | None:
    from PIL import ImageColor

    try:
        return ImageColor.getrgb(name)[:3] if name else None
    except ValueError as error:
        mend = "write a name such as white, or #rrggbb"
        raise UsageError(f"--background {name}: is no colour; {mend}") from error
