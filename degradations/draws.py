"""Draws the parameters of nested steps, for one picture or for many."""

from collections.abc import Iterator, Sequence

from degradations import ops
from degradations.ops import plugins
from degradations.ops.op import Op, Params
from degradations.rng import Rng, make_rngs, root

# a step that waits, what its Rng is made of, and where its parameters go
_Waiting = tuple[ops.Step, bytes, list]


def draw(step: ops.Step, rng: Rng) -> Iterator[Params]:
    """Draw the parameters of one step for one picture; a group of steps yields several."""
    if isinstance(step, Op):
        yield _params(step, rng)
    else:
        for slot, inner in enumerate(step.choose(rng)):
            yield from draw(inner, rng.at(slot))


def draw_all(steps: Sequence[ops.Step], seed: int, keys: Sequence[str]) -> list[list[Params]]:
    """Draw the parameters of all steps for each key: as `draw`, but many at a time.

    It goes through nested steps level by level, because each level is known for all pictures.

    Args:
        steps: The steps of a recipe.
        seed: Seed of the draws.
        keys: One a picture.

    Returns:
        For each key the parameters in order.
    """
    trees: list[list] = [[] for _ in keys]  # of parameters, and of lists like this one
    level: list[_Waiting] = []
    for tree, rng in zip(trees, make_rngs([root(seed, key) for key in keys]), strict=True):
        _wait(steps, rng, tree, level)
    while level:
        below: list[_Waiting] = []
        rngs = make_rngs([key for _, key, _ in level])
        for (step, _, found), rng in zip(level, rngs, strict=True):
            if isinstance(step, Op):
                found.append(_params(step, rng))
            else:
                _wait(step.choose(rng), rng, found, below)
        level = below
    return [list(_flat(tree)) for tree in trees]


def _wait(steps: Sequence[ops.Step], rng: Rng, tree: list, level: list[_Waiting]) -> None:
    for slot, step in enumerate(steps):
        found: list = []
        tree.append(found)
        level.append((step, rng.slot_key(slot), found))


def _flat(tree: list) -> Iterator[Params]:
    for found in tree:
        if isinstance(found, list):
            yield from _flat(found)
        else:
            yield found


def _params(op: Op, rng: Rng) -> Params:
    ours = op.kind in ops.OPS
    return {"kind": op.kind, **(op.draw(rng) if ours else plugins.draw(op, rng))}
