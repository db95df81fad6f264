import torch

from restore.diffusion.noise import BLOCK, canvas_noise, seed_of


def test_noise_depends_on_seed_and_position_alone():
    small = canvas_noise((1, 4, 40, 70), seed=3)
    large = canvas_noise((1, 4, 2 * BLOCK, 3 * BLOCK), seed=3)
    assert torch.equal(small, large[..., :40, :70])
    assert not torch.equal(small, canvas_noise((1, 4, 40, 70), seed=4))


def test_noise_is_standard_normal_and_its_blocks_differ():
    noise = canvas_noise((1, 8, 2 * BLOCK, 2 * BLOCK), seed=0)
    assert abs(noise.mean()) < 0.02
    assert abs(noise.std() - 1) < 0.02
    assert not torch.equal(noise[..., :BLOCK, :BLOCK], noise[..., BLOCK:, BLOCK:])


def test_a_seed_is_the_same_in_every_process():
    assert seed_of(1, "a/b.png") == 2194934089077321908


def test_a_part_of_a_canvas_has_the_noise_of_its_place():
    whole = canvas_noise((1, 2, 200, 150), 3)
    part = canvas_noise((1, 2, 90, 70), 3, origin=(61, 40))
    assert torch.equal(part, whole[..., 61:151, 40:110])
