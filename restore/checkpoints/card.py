"""Model cards: Markdown behind a head of YAML, as the hub reads it."""

from collections.abc import Mapping, Sequence

TAGS = ("image-restoration", "super-resolution", "inpainting", "diffusion")
UNKNOWN = "unknown"  # as a licence: what the hub shows where nobody has chosen one yet


def headed(
    text: str,
    name: str,
    licence: str = UNKNOWN,
    scores: Mapping[str, float] = {},
    tags: Sequence[str] = TAGS,
    of: str = "held-out photos",
) -> str:
    """The text behind a head; one that has a head already is left as it is.

    licence  of the weights, by the hub's names, such as apache-2.0.
    scores   by measure, of the pictures that `of` tells.
    """
    from huggingface_hub import EvalResult, ModelCardData

    if text.startswith("---\n"):
        return text
    results = [
        EvalResult(
            task_type="image-to-image",
            dataset_type="image-folder",
            dataset_name=of,
            metric_type=measure,
            metric_value=round(float(value), 5),
        )
        for measure, value in scores.items()
    ]
    data = ModelCardData(
        license=licence,
        library_name="restore-toolkit",
        pipeline_tag="image-to-image",
        tags=list(tags),
        metrics=list(scores) or None,
        **({"model_name": name, "eval_results": results} if results else {}),
    )
    return f"---\n{data.to_yaml()}\n---\n\n{text}"
