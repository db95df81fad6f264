"""Model cards: Markdown after a YAML head, as the hub reads them."""

from collections.abc import Mapping, Sequence

TAGS = ("image-restoration", "super-resolution", "inpainting", "diffusion")
UNKNOWN = "unknown"  # the hub's name for a licence that is not known


def headed(
    text: str,
    name: str,
    licence: str = UNKNOWN,
    scores: Mapping[str, float] = {},
    tags: Sequence[str] = TAGS,
    of: str = "held-out photos",
) -> str:
    """Add a head to a card; a card that has one is returned unchanged.

    Args:
        text: The card.
        name: Of the model.
        licence: Of the weights, by the hub's names, such as apache-2.0.
        scores: By measure.
        tags: Of the model.
        of: The pictures that the scores were measured on.
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
