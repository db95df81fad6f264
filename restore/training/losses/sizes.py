"""How small a picture may be for the networks that judge it."""

from restore.training.losses.discriminator import AdversaryOptions
from restore.training.losses.perceptual import LpipsOptions, PerceptualOptions

LEAST = {"vgg": 16, "alex": 32, "squeeze": 20}  # px a side that leave something to the last layer


def complaint(
    side: int, perceptual: PerceptualOptions | None, adversary: AdversaryOptions | None
) -> str:
    """What is too small to be judged, and the mend; "" if nothing is.

    Args:
        side: Side of the pictures, pixels.
        perceptual: The perceptual loss, if any.
        adversary: The discriminator, if any.
    """
    if adversary and side < (least := 3 * 2**adversary.layers):
        fewer = (side // 3).bit_length() - 1
        mend = f"layers {fewer}, or larger pictures" if fewer else "larger pictures"
        return (
            f"a discriminator of {adversary.layers} layers needs pictures of {least} px, not "
            f"{side}; take {mend}"
        )
    if perceptual:
        net = perceptual.net if isinstance(perceptual, LpipsOptions) else "squeeze"
        if side < LEAST[net]:
            return (
                f"the perceptual loss {perceptual.kind} needs pictures of {LEAST[net]} px, not "
                f"{side}; take larger ones"
            )
    return ""
