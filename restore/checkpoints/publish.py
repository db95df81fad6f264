"""Save a stack to a folder, or upload it to the hub."""

import re
import tempfile
from pathlib import Path

from restore.checkpoints import card as cards
from restore.checkpoints import hub
from restore.checkpoints import save as saving
from restore.diffusion.lazy_stack import LazyStack
from restore.diffusion.stack import Stack
from restore.errors import OutputError, UsageError
from restore.files import read_plain
from restore.pixel.model import PixelModel

MOST = 2**24  # bytes of a card
COMES_ALONG = re.compile(r"(LICEN[CS]E|NOTICE|COPYING).*|photos\.csv", re.IGNORECASE)


def save(model: Stack | PixelModel | LazyStack, folder: Path, card: str | None = None) -> None:
    """Write a stack to a folder without loss, with its licences and list of photos.

    Args:
        model: The model.
        folder: Where to write.
        card: README.md. None: that of the folder it was loaded from, or a short one.

    Raises:
        UsageError: If it is a pixel upscaler or an ONNX export, if it has a first stage or a
            ControlNet of another file, or if the folder is the one it was loaded from.
        OutputError: As save.save.
    """
    if isinstance(model, LazyStack) or model.engine == "onnx":  # its parts hold no weights
        raise UsageError(f"{model.name}: is an ONNX export; copy its folder")
    if isinstance(model, PixelModel):
        raise UsageError(f"{model.name}: a pixel upscaler is one file, unchanged; copy that")
    _refuse_beside(model)
    if model.origin is not None and folder.resolve() == model.origin.resolve():
        raise UsageError(f"{folder}: is what the model was read from; give another folder")
    text = _card_of(model) if card is None else card
    more = [path for path in _beside(model) if COMES_ALONG.fullmatch(path.name)]
    saving.save(model, folder, cards.headed(text, folder.name), dtype=None, more=more)


def _refuse_beside(stack: Stack) -> None:
    """Raise UsageError if the stack has a part that is no part of a model folder."""
    if stack.enlarger is not None:
        part, argument = f"first stage, {stack.enlarger.name},", "first_stage=FILE"
    elif stack.control is not None:
        part, argument = "ControlNet", "controlnet=FOLDER"
    else:
        return
    raise UsageError(
        f"{stack.name}: its {part} would be lost, as a model folder holds none; save the model "
        f"loaded without it, and give it at loading: restore.load(MODEL, {argument})"
    )


def _beside(stack: Stack) -> list[Path]:
    """Return the files beside the parts in the folder that a stack was loaded from."""
    if stack.origin is None:
        return []
    return sorted(path for path in stack.origin.iterdir() if path.is_file())


def _card_of(stack: Stack) -> str:
    for path in _beside(stack):
        if path.name == "README.md":
            return read_plain(path, MOST).decode("utf-8", "replace")
    name = Path(stack.name).name
    return f"# {name}\n\nSaved by restore-toolkit; nothing is known here of how it was trained.\n"


def push(
    model: Stack | PixelModel | LazyStack,
    repo: str,
    card: str | None = None,
    *,
    private: bool | None = None,
    token: str | None = None,
    **how: object,
) -> str:
    """Upload what `save` writes to `org/name` on the hub. Other files there are kept.

    Args:
        model: The model.
        repo: `org/name`.
        card: As in `save`.
        private: Whether a new repository is private.
        token: Of the hub.
        how: Arguments of HfApi.upload_folder: revision, create_pr, commit_message.

    Returns:
        The URL of the commit.

    Raises:
        UsageError: If the name is not `org/name`, or as `save`.
        OutputError: If the hub refuses it.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HFValidationError, HTTPError

    named = hub.HUB_ID.fullmatch(repo)
    if named is None or named["revision"]:
        raise UsageError(f"{repo}: is no name on the hub; write org/name")
    with tempfile.TemporaryDirectory(prefix="restore-push-") as lent:
        folder = Path(lent) / repo.rpartition("/")[2]
        save(model, folder, card)
        api = HfApi(token=token)
        try:
            made = api.create_repo(repo, private=private, exist_ok=True)
            commit = api.upload_folder(
                repo_id=made.repo_id,
                folder_path=folder,
                delete_patterns=[f"{part}/*" for part in hub.PARTS],
                **how,
            )
        except (HTTPError, HFValidationError, OSError) as error:
            why = str(error).partition("\n")[0]
            mend = "log in by `hf auth login` as one who may write there"
            raise OutputError(f"{repo}: the hub did not take it: {why}; {mend}") from error
    return str(commit.commit_url)
