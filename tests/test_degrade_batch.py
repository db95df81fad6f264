"""The same bytes for any batch size, number of workers or threads, and order."""

from hashlib import sha256

import cv2
import numpy as np
import pytest
from torch.utils.data import DataLoader

from degradations import degrade_batch, recipes

COUNT = 10_000
FEW = 600  # for every run of the suite
RECIPE = recipes.named("realesrgan")


def source(seed=0):
    """uint8 (160, 160, 3): blobs with texture, to cut small pictures from."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(0, 255, (16, 16, 3)).astype(np.float32)
    image = cv2.resize(coarse, (160, 160), interpolation=cv2.INTER_CUBIC)
    return np.clip(image + rng.normal(0, 6, image.shape), 0, 255).astype(np.uint8)


class Batches:
    """Batch n -> [(index, sha256 of the low picture and of its trace)]; made in a worker."""

    def __init__(self, count, size, threads=1, is_reversed=False):
        order = list(range(count))[:: -1 if is_reversed else 1]
        self.batches = [order[start : start + size] for start in range(0, count, size)]
        self.source, self.threads = source(), threads

    def __len__(self):
        return len(self.batches)

    def picture(self, index):
        y, x = index * 7 % 120, index * 13 % 120
        return self.source[y : y + 24 + index % 17, x : x + 24 + index % 13]

    def __getitem__(self, number):
        indices = self.batches[number]
        pictures, keys = [self.picture(i) for i in indices], [f"photo_{i}" for i in indices]
        done = degrade_batch(RECIPE, pictures, 4, seed=0, keys=keys, threads=self.threads)
        digests = (sha256(d.lr.tobytes() + d.trace.to_json().encode()).digest() for d in done)
        return list(zip(indices, digests, strict=True))


def digest(count, size, workers=0, **how):
    """sha256 over `count` pictures in the order of their numbers."""
    context = "spawn" if workers else None  # a worker that has nothing of this process
    loader = DataLoader(
        Batches(count, size, **how),
        batch_size=None,
        num_workers=workers,
        multiprocessing_context=context,
    )
    rows = sorted(row for batch in loader for row in batch)
    assert [index for index, _ in rows] == list(range(count))
    return sha256(b"".join(one for _, one in rows)).hexdigest()


@pytest.fixture(scope="module")
def alone():
    return digest(COUNT, 1)


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on one CPU
def test_workers_batches_and_threads_change_nothing():
    first = digest(FEW, 1)
    assert digest(FEW, 7, workers=2, is_reversed=True) == first
    for size, threads, is_reversed in ((256, 1, True), (256, 4, False)):
        assert digest(FEW, size, threads=threads, is_reversed=is_reversed) == first


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on fewer CPUs
@pytest.mark.parametrize("is_reversed", [False, True])
@pytest.mark.parametrize("workers", [0, 1, 2, 4])
@pytest.mark.parametrize("size", [1, 7, 256])
def test_no_split_of_ten_thousand_pictures_changes_a_byte(alone, size, workers, is_reversed):
    assert digest(COUNT, size, workers, is_reversed=is_reversed) == alone


def test_a_batch_gives_what_one_picture_gives_and_keeps_each_size():
    batches = Batches(5, 5)
    pictures, keys = [batches.picture(i) for i in range(5)], list("abcde")
    done = degrade_batch(RECIPE, pictures, 3.3, seed=2, keys=keys, threads=2)
    for degraded, picture, key in zip(done, pictures, keys, strict=True):
        wanted = RECIPE.degrade(picture, 3.3, 2, key)
        assert (degraded.lr == wanted.lr).all() and degraded.trace == wanted.trace
    assert degrade_batch(RECIPE, [], 4, seed=0, keys=[]) == []


def test_a_batch_that_cannot_be_made_is_refused():
    picture = source()
    with pytest.raises(ValueError, match="2 pictures and 1 keys; give each its own key"):
        degrade_batch(RECIPE, [picture] * 2, 4, 0, ["a"])
    with pytest.raises(ValueError, match="threads must be 1 or more, not 0"):
        degrade_batch(RECIPE, [picture], 4, 0, ["a"], threads=0)
    with_alpha = np.dstack([picture] * 2)[..., :4]
    for threads in (1, 2):
        with pytest.raises(ValueError, match="leave out the alpha"):
            degrade_batch(RECIPE, [picture, with_alpha], 4, 0, ["a", "b"], threads=threads)
