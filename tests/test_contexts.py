"""Words, classes and boxes become tokens; what cannot be read is refused by name."""

import json
from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline, StableDiffusionXLPipeline
from torch import nn

from restore.checkpoints import manifest
from restore.checkpoints.load import load
from restore.checkpoints.save import save
from restore.diffusion.conditioning import Condition
from restore.diffusion.contexts.boxes import Box, BoxContext, BoxEncoder, parsed, written
from restore.diffusion.contexts.classes import ClassContext
from restore.diffusion.contexts.text import weighed
from restore.diffusion.stack import Stack
from restore.errors import ModelError, UsageError
from restore.options import Text2imgOptions
from restore.tasks.text2img import text2img
from restore.training.stages.vocabulary import letters

LABELS = ("red circle", "blue square", "7")
RED, BLUE = "red circle 0.1,0.2,0.5,0.6", "blue square 0.5,0.5,0.9,0.9"
pytestmark = pytest.mark.usefixtures("still")


@pytest.fixture
def still():
    with torch.inference_mode():
        yield


@pytest.fixture
def text(stack):
    return stack.context


@pytest.fixture
def classes():
    torch.manual_seed(0)
    return ClassContext(nn.Embedding(4, 16), LABELS)


@pytest.fixture
def boxes():
    torch.manual_seed(0)
    return BoxContext(BoxEncoder(3, 16), LABELS, most=3)


def stock(text, prompt, clip_skip=None):
    """What diffusers' own pipeline makes of a prompt."""
    encoder = text.module
    if not hasattr(encoder, "text_model"):  # diffusers looks there; transformers 5 flattened it
        object.__setattr__(encoder, "text_model", encoder)
    pipe = StableDiffusionPipeline(
        vae=None,
        text_encoder=encoder,
        tokenizer=text.tokenizer,
        unet=None,
        scheduler=DDIMScheduler(steps_offset=1, clip_sample=False),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    return pipe.encode_prompt(prompt, "cpu", 1, False, clip_skip=clip_skip)[0]


@pytest.mark.parametrize("prompt", ["", "a red cat", "été 🐈", "x" * 75, "a (cat", "a ] cat [ :)"])
def test_a_prompt_without_weights_equals_diffusers(text, prompt):
    assert torch.equal(text.embed(prompt), stock(text, prompt))


def test_clip_skip_equals_diffusers(text):
    made = text.embed("a red cat", clip_skip=1)
    assert torch.equal(made, stock(text, "a red cat", clip_skip=1))
    assert not torch.equal(made, text.embed("a red cat"))


def test_clip_skip_beyond_the_layers_says_how_many_there_are(text):
    with pytest.raises(UsageError, match="clip_skip 2: the text encoder has no more layers than 1"):
        text.embed("a", clip_skip=2)


def test_a_long_prompt_is_its_chunks_of_75_one_after_another(text):
    made = text.embed("a" * 75 + "b" * 75 + "c" * 10)
    assert made.shape == (1, 3 * 77, 16)
    parts = [text.embed(letter * count) for letter, count in (("a", 75), ("b", 75), ("c", 10))]
    # the last letter alone is another token at a word's end
    torch.testing.assert_close(made[:, :75], parts[0][:, :75])
    assert text.embed("a " * 10_000).shape == (1, 134 * 77, 16)


# two text encoders


@pytest.fixture(scope="module")
def xl(tmp_path_factory):
    return tiny.checkpoint(tmp_path_factory.mktemp("xl") / "model", "xl")


@pytest.fixture
def two(xl):
    return load(str(xl), device="cpu").context


@pytest.mark.parametrize("clip_skip", [0, 1])
@pytest.mark.parametrize("prompt", ["", "a red cat", "x" * 75, "a (cat"])
def test_two_encoders_read_a_prompt_as_diffusers(two, xl, prompt, clip_skip):
    pipe = StableDiffusionXLPipeline.from_pretrained(xl)
    tokens, _, pooled, _ = pipe.encode_prompt(
        prompt, device="cpu", do_classifier_free_guidance=False, clip_skip=clip_skip
    )
    for one, other in zip(two.embed_pooled(prompt, clip_skip), (tokens, pooled), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)
    assert torch.equal(two.tokens(two.inputs(prompt)[None]), two.embed(prompt))


def test_two_encoders_read_long_prompts_and_weights(two):
    words = [letter * count for letter, count in (("a", 75), ("b", 75), ("c", 10))]
    made, pooled = two.embed_pooled("".join(words))
    assert made.shape == (1, 3 * 77, 32) and pooled.shape == (1, 16)
    torch.testing.assert_close(made[:, :75], two.embed(words[0])[:, :75])
    torch.testing.assert_close(pooled, two.embed_pooled(words[0] + "b" * 9)[1])
    plain, nothing = two.embed("a cat"), two.embed("")
    for weight in (0.0, 1.5):
        wanted = torch.lerp(nothing, plain, weight)
        heavy, same = two.embed_pooled(f"(a cat:{weight})")
        torch.testing.assert_close(heavy[:, 1:5], wanted[:, 1:5])
        torch.testing.assert_close(same, two.embed_pooled("a cat")[1])


def test_an_encoder_that_needs_more_chunks_is_followed_by_the_other(two):
    """Tokenizers that cut words otherwise are not to be mixed up."""

    class Halved:
        """One token for each letter twice."""

        def __getattr__(self, name):
            return getattr(two.tokenizers[0], name)

        def __call__(self, text, **more):
            found = two.tokenizers[0](text, **more)
            found["input_ids"] = [one for one in found.input_ids for _ in range(2)]
            return found

    mixed = replace(two, tokenizers=(two.tokenizers[0], Halved()))
    assert mixed.embed("a" * 60).shape == (1, 2 * 77, 32)


def test_no_negative_prompt_is_zeros_where_the_checkpoint_says_so(two):
    for heard in two.embed_pooled("", is_wanted=False):
        assert not heard.any()
    for prompt, is_wanted in (("", True), ("blurry", False)):
        assert all(heard.any() for heard in two.embed_pooled(prompt, is_wanted=is_wanted))
    assert all(h.any() for h in replace(two, zeroes=False).embed_pooled("", is_wanted=False))


def test_clip_skip_beyond_the_layers_of_the_shorter_encoder_is_refused(two):
    with pytest.raises(UsageError, match=r"clip_skip 3: .* no more layers to leave out than 2"):
        two.embed("a", clip_skip=3)


def test_a_window_of_sdxl_answers_the_same_wherever_it_lies(xl):
    stack = load(str(xl), device="cpu")
    x = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(1))
    condition = Condition(torch.zeros(1, 0, 40, 64), torch.ones(1, 1, 40, 64))
    predict = stack.predict(condition, "a cat")
    answers = [predict(x, torch.tensor(500), [corner]) for corner in ((0, 0), (12, 36))]
    assert torch.equal(*answers)
    assert not torch.equal(answers[0], stack.predict(condition, "a dog")(x, 500, [(0, 0)]))


@pytest.mark.parametrize(
    ("prompt", "wanted"),
    [
        ("a (red:1.3) b", [("a ", 1), ("red", 1.3), (" b", 1)]),
        ("(a)", [("a", 1.1)]),
        ("[a]", [("a", 1 / 1.1)]),
        ("((a) b:2)", [("a", 2.2), (" b", 2)]),
        ("((a:1.2):.5)", [("a", 0.6)]),
        (r"\(a:2\) \[b\]", [("(a:2) [b]", 1)]),
        ("(a:b)", [("a:b", 1.1)]),
        ("(a", [("(a", 1)]),
        ("a) :)", [("a) :)", 1)]),
        ("[a) (b)", [("[a) ", 1), ("b", 1.1)]),
        ("()", []),
        ("", []),
    ],
)
def test_brackets_weigh_and_those_without_a_partner_are_plain(prompt, wanted):
    made = weighed(prompt)
    assert [piece for piece, _ in made] == [piece for piece, _ in wanted]
    np.testing.assert_allclose([weight for _, weight in made], [weight for _, weight in wanted])


def test_ten_thousand_brackets_are_refused_and_not_waited_for():
    with pytest.raises(UsageError, match="beyond 100"):
        weighed("(" * 10_000 + "a" + ")" * 10_000)
    assert weighed("[" * 10_000) == [("[" * 10_000, 1.0)]


def test_a_weight_moves_its_word_away_from_no_prompt(text):
    plain, nothing = text.embed("a cat"), text.embed("")
    wanted = plain.clone()
    cat = slice(2, 5)  # c, a, t</w> after the first token and the a
    for weight in (1.5, 0.5, 0, -1, 100):
        wanted[:, cat] = nothing[:, cat] + weight * (plain[:, cat] - nothing[:, cat])
        torch.testing.assert_close(text.embed(f"a (cat:{weight})"), wanted)
    assert torch.equal(text.embed("a (cat:1)"), plain)


@pytest.mark.parametrize("mean", [0, 1e-9, -1e-9, 1e-3, -1e-3, 100])
def test_weights_hold_for_any_mean_that_an_encoder_gives(text, mean):
    """A1111's rule, to bring a chunk back to its mean, divides by a number that may be nothing."""
    prompt, weighted = "masterpiece, a dog", "(masterpiece:1.2), a dog"
    norm = getattr(text.module, "text_model", text.module).final_layer_norm
    before = text.embed(weighted) - text.embed(prompt)
    norm.bias += mean - text.embed(prompt).mean()
    plain, heavy = text.embed(prompt), text.embed(weighted)
    torch.testing.assert_close(heavy - plain, before, rtol=1e-4, atol=1e-4)
    assert (heavy - plain).abs().max() < plain.std()
    slight = text.embed("(masterpiece:1.0001), a dog")
    torch.testing.assert_close(slight, plain, rtol=0, atol=1e-3)


def test_a_weight_in_one_chunk_leaves_the_others_alone(text):
    plain, heavy = text.embed("a" * 80), text.embed("(" + "a" * 75 + ":1.5)" + "a" * 5)
    assert torch.equal(plain[:, 77:], heavy[:, 77:])
    assert not torch.equal(plain[:, :77], heavy[:, :77])


def test_the_tokenizer_makes_one_token_of_each_word_it_was_given():
    tokenizer = letters(["red", "green", "triangle", "red", "circle", "re"], length=12)
    ids = tokenizer("red green triangle circle re", add_special_tokens=False).input_ids
    assert len(set(ids)) == 5
    assert len(tokenizer("reds", add_special_tokens=False).input_ids) > 1
    assert tokenizer.model_max_length == 12


def test_a_class_goes_by_name_by_number_and_by_nothing(classes):
    weight = classes.module.weight
    for prompt, row in (("red circle", 0), (" Blue  SQUARE ", 1), ("1", 1), ("7", 2), ("", 3)):
        assert torch.equal(classes.embed(prompt)[0, 0], weight[row])


@pytest.mark.parametrize("prompt", ["red circel", "3", "-1", "🐈"])
def test_an_unknown_class_names_the_choice(classes, prompt):
    with pytest.raises(UsageError, match=r"3 classes.*0 to 2.*'red circle'"):
        classes.embed(prompt)


def test_clip_skip_is_for_text(classes, boxes):
    for context in (classes, boxes):
        with pytest.raises(UsageError, match="not text"):
            context.embed("", clip_skip=1)


def test_boxes_and_the_prompt_that_says_them_are_one():
    listed = [Box("red circle", 0.1, 0.2, 0.5, 0.6), Box("blue square", 0, 0.125, 1, 1)]
    assert parsed(written(listed)) == listed
    assert parsed(f" {RED} ;; {BLUE}; ") == [listed[0], Box("blue square", 0.5, 0.5, 0.9, 0.9)]


def test_every_box_is_one_token_and_no_box_another(boxes):
    one, two, none = (boxes.embed(prompt) for prompt in (RED, f"{RED};{BLUE}", ""))
    assert one.shape == (1, 3, 16)
    assert torch.equal(one[:, 0], two[:, 0])
    assert torch.equal(one[:, 1], none[:, 1])
    assert torch.equal(none[:, 0], none[:, 2])
    moved = boxes.embed("red circle 0.1,0.2,0.5,0.61")
    assert not torch.equal(moved[:, 0], one[:, 0])


@pytest.mark.parametrize(
    ("prompt", "says"),
    [
        ("red circle", "four numbers end a box"),
        ("red circle 0.1,0.2,0.5", "four numbers end a box"),
        ("red circle 0.1,0.2,0.5,x", "four numbers end a box"),
        ("0.1,0.2,0.5,0.6", "has no label"),
        ("red circle 0.5,0.2,0.1,0.6", "left before right"),
        ("red circle 0.1,0.2,0.5,1.6", "from 0 to 1"),
        ("red circle nan,0.2,0.5,0.6", "from 0 to 1"),
        ("red circel 0.1,0.2,0.5,0.6", "did you mean 'red circle'"),
        (";".join([RED] * 4), "4 boxes: this model reads 3"),
    ],
)
def test_a_bad_box_is_quoted_with_its_mend(boxes, prompt, says):
    with pytest.raises(UsageError, match=says):
        boxes.embed(prompt)


@pytest.mark.parametrize(("kind", "prompt"), [("classes", "blue square"), ("boxes", RED)])
def test_a_stack_with_another_context_saves_loads_and_draws(stack, request, tmp_path, kind, prompt):
    context = request.getfixturevalue(kind)
    other = Stack(**{**vars(stack), "context": context})
    save(other, tmp_path / "model", "# tiny\n", torch.float32)
    assert {path.suffix for path in (tmp_path / "model" / "context").iterdir()} == {
        ".json",
        ".safetensors",
    }
    again = load(str(tmp_path / "model"), "cpu")
    assert again.context.kind == kind
    assert torch.equal(again.context.embed(prompt), context.embed(prompt))
    options = Text2imgOptions(height=24, width=20, prompt=prompt, steps=1)
    pictures = [text2img(options, model, seed=0).pixels for model in (other, again)]
    assert np.array_equal(*pictures)
    assert pictures[0].shape == (24, 20, 3)
    if kind == "boxes":
        inputs = torch.stack([context.inputs(words) for words in (RED, "", BLUE)])
        torch.testing.assert_close(again.context.tokens(inputs)[:1], context.embed(RED))


def test_a_saved_vocabulary_does_not_tell_how_it_was_used(stack, tmp_path):
    save(stack, tmp_path / "fresh", "# tiny\n", torch.float32)
    stack.context.inputs("a red cube")
    save(stack, tmp_path / "used", "# tiny\n", torch.float32)
    one, other = ((tmp_path / n / "tokenizer" / "tokenizer.json") for n in ("fresh", "used"))
    assert one.read_bytes() == other.read_bytes()


def test_a_context_of_another_kind_is_refused(stack, tmp_path):
    save(stack, tmp_path / "model", "# tiny\n", torch.float32)
    about = tmp_path / "model" / "stack.json"
    about.write_text(json.dumps(json.loads(about.read_text()) | {"context": "sounds"}))
    manifest.write(tmp_path / "model")
    with pytest.raises(ModelError, match="'sounds' is none of"):
        load(str(tmp_path / "model"), "cpu")
