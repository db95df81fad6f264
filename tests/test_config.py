"""Options: what is wrong is refused by name, with the place and the mend."""

import hashlib
import json
import re
from pathlib import Path
from typing import Annotated, Literal

import pytest
import yaml
from pydantic import Field, model_validator

from restore.config import Options, load_config, load_options
from restore.errors import ConfigError
from restore.options import InpaintOptions, UpscaleOptions


class Blur(Options):
    kind: Literal["blur"] = "blur"
    sigma: float = 1.0


class Jpeg(Options):
    kind: Literal["jpeg"] = "jpeg"
    quality: int = Field(75, ge=1, le=100)


class Recipe(Options):
    name: str
    best: Blur | None = None
    ops: list[Annotated[Blur | Jpeg, Field(discriminator="kind")]] = Field([])


def upscale(tmp_path, text, *sets, **given):
    config = tmp_path / "photo.yaml"
    config.write_text(text)
    return load_options(UpscaleOptions, "upscale", config, list(sets), **given)


def test_options_that_do_not_go_together_are_refused_without_a_file_too():
    given = {"eta": 0.5, "sampler": "euler"}
    with pytest.raises(ConfigError, match=r"^upscale: eta 0.5 is for the sampler ddim, not euler"):
        load_options(UpscaleOptions, "upscale", None, [], **given)


def test_the_later_word_wins(tmp_path):
    text = "upscale: {scale: 2, steps: 3, guidance: 2.5}"
    options = upscale(tmp_path, text, "upscale.steps=5", "upscale.scale=3", scale=1.5, prompt=None)
    assert (options.scale, options.steps, options.guidance, options.prompt) == (1.5, 5, 2.5, "")


def test_unknown_option_names_the_file_and_the_near_key(tmp_path):
    with pytest.raises(ConfigError) as caught:
        upscale(tmp_path, "upscale: {stesp: 3}")
    place = tmp_path / "photo.yaml"
    told = "upscale.stesp is not an option of UpscaleOptions; did you mean 'steps'?"
    assert str(caught.value) == f"{place}: {told}"


def test_each_mistake_has_a_line_that_says_where_it_was_made(tmp_path):
    with pytest.raises(ConfigError) as caught:
        upscale(tmp_path, "upscale: {steps: none}", "upscale.guidance=40", scale=0.0)
    lines = sorted(str(caught.value).splitlines())
    assert len(lines) == 3
    assert lines[0] == "--scale: upscale.scale must be greater than or equal to 1, not 0.0"
    assert lines[1].startswith("--set upscale.guidance=40: upscale.guidance must be less than")
    assert lines[2].startswith(f"{tmp_path / 'photo.yaml'}: upscale.steps must be a valid integer")


@pytest.mark.parametrize("given", ["yes", "true", "off"])
def test_a_truth_is_no_number(tmp_path, given):
    place = rf"{tmp_path / 'photo.yaml'}: upscale\.steps must be a valid number, not (True|False)"
    with pytest.raises(ConfigError, match=place):
        upscale(tmp_path, f"upscale: {{steps: {given}}}")


@pytest.mark.parametrize("scale", [0, -1, -2, float("nan"), float("inf"), 1e9])
def test_an_impossible_scale_is_refused(scale):
    with pytest.raises(ConfigError, match=r"upscale\.scale must be"):
        load_options(UpscaleOptions, "upscale", scale=scale)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("upscal: {steps: 3}", "upscal is not a section; did you mean 'upscale'?"),
        ("upscale: 3", "upscale must hold"),
        ("- upscale", "must hold"),
        ("upscale: {steps: [", "is not YAML"),
        ("upscale: !!python/object/apply:os.system ['exit 1']", "is not YAML"),
    ],
)
def test_a_file_that_is_no_configuration_is_refused(tmp_path, text, told):
    with pytest.raises(ConfigError, match=r"photo\.yaml") as caught:
        upscale(tmp_path, text)
    assert told in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: cannot be read"):
        load_options(UpscaleOptions, "upscale", tmp_path / "nowhere.yaml")


@pytest.mark.parametrize(
    "pair", ["steps=3", "upscale.steps", "=3", "upscale..steps=3", "inpaint.x=1"]
)
def test_a_pair_that_is_none_is_refused(pair):
    with pytest.raises(ConfigError, match="KEY=VALUE"):
        load_options(UpscaleOptions, "upscale", sets=[pair])


def test_an_empty_file_and_an_empty_section_mean_the_defaults(tmp_path):
    assert upscale(tmp_path, "") == UpscaleOptions() == upscale(tmp_path, "upscale:")


def test_a_whole_file_takes_overrides_at_any_depth(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("name: old\nops: [{kind: blur}, {kind: jpeg, quality: 30}]\n")
    recipe = load_config(Recipe, path, ["name=new", "best.sigma=2"])
    assert recipe.name == "new"
    assert recipe.best == Blur(sigma=2)
    assert recipe.ops == [Blur(), Jpeg(quality=30)]


def test_the_near_key_is_found_inside_lists_and_unions(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("name: x\nbest: {sgima: 1}\nops: [{kind: blur}, {kind: jpeg, qualty: 3}]\n")
    with pytest.raises(ConfigError) as caught:
        load_config(Recipe, path)
    lines = str(caught.value).splitlines()
    assert lines[0].endswith("best.sgima is not an option of Blur; did you mean 'sigma'?")
    assert lines[1].endswith("qualty is not an option of Jpeg; did you mean 'quality'?")


class Jpegs(Options):
    kind: Literal["jpegs"] = "jpegs"
    blur: str = ""  # a field called as the tag of another member
    inner: Jpeg = Jpeg()


class Blurs(Options):
    kind: Literal["blur"] = "blur"
    inner: Blur = Blur()


class Run(Options):
    stage: Annotated[Jpegs | Blurs, Field(discriminator="kind")]


def test_a_place_in_a_union_is_named_as_it_is_spelled_and_by_whoever_said_it(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("stage: {kind: blur}\n")
    with pytest.raises(ConfigError) as caught:
        load_config(Run, path, ["stage.inner.sgima=2"])
    told = "stage.inner.sgima is not an option of Blur; did you mean 'sigma'?"
    assert str(caught.value) == f"stage.inner.sgima=2: {told}"


@pytest.mark.parametrize(
    ("stage", "told"),
    [
        ("{inner: {}}", "run.yaml: stage.kind is missing"),
        ("{kind: blru}", "run.yaml: stage.kind: there is no 'blru'; did you mean 'blur'?"),
        ("{kind: 5}", "run.yaml: stage.kind: there is no '5'; there are blur, jpegs"),
        ("{kind: blur, share: 2}", "run.yaml: nothing is left"),
    ],
)
def test_a_kind_that_is_none_and_a_mistake_of_the_whole_are_told(tmp_path, stage, told):
    class Shared(Run):
        share: int = 1

        @model_validator(mode="after")
        def _is_left(self):
            if self.share > 1:
                raise ValueError("nothing is left")
            return self

    path = tmp_path / "run.yaml"
    path.write_text(f"stage: {stage}\n".replace(", share: 2}", "}\nshare: 2"))
    with pytest.raises(ConfigError) as caught:
        load_config(Shared, path)
    assert str(caught.value) == f"{tmp_path}/{told}"


def test_a_missing_value_and_a_value_with_keys_are_named(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("best: {sigma: 1}\n")
    with pytest.raises(ConfigError, match=r"recipe\.yaml: name is missing"):
        load_config(Recipe, path)
    with pytest.raises(ConfigError, match=r"best\.sigma holds one value"):
        load_config(Recipe, path, ["best.sigma.x=2"])


def test_the_digest_is_of_what_decides_the_pixels():
    plain = UpscaleOptions()
    assert plain.digest(seed=0) == UpscaleOptions(windows=1).digest(seed=0)
    others = [plain.digest(seed=1), UpscaleOptions(steps=2).digest(seed=0)]
    assert len({plain.digest(seed=0), *others}) == 3


def test_an_option_counts_although_the_model_has_a_fact_of_its_name():
    kinds = [InpaintOptions(engine=name) for name in ("auto", "telea", "patchmatch")]
    digests = [options.digest(seed=0, engine="onnx") for options in kinds]
    assert len(set(digests)) == 3
    values = {**kinds[0].model_dump(mode="json", exclude={"windows"}), "seed": 0, "engine": "onnx"}
    earlier = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
    assert digests[0] == earlier  # finished folders stay finished


def test_the_shipped_config_spells_out_the_defaults():
    path = Path(__file__).resolve().parents[1] / "configs" / "upscale.yaml"
    assert load_options(UpscaleOptions, "upscale", path) == UpscaleOptions()
    assert set(yaml.safe_load(path.read_text())["upscale"]) == set(
        UpscaleOptions().model_dump()
    ) - {"task"}


@pytest.mark.parametrize("aspect", ["16:9", "4:5", "2.39:1", "1:30.5"])
def test_an_aspect_needs_no_quotes(aspect, tmp_path):
    config = tmp_path / "wide.yaml"
    config.write_text(f"inpaint: {{aspect: {aspect}}}")
    of_file = load_options(InpaintOptions, "inpaint", config)
    of_set = load_options(InpaintOptions, "inpaint", None, [f"inpaint.aspect={aspect}"])
    assert of_file.aspect == of_set.aspect == aspect


@pytest.mark.parametrize("text", ["1e-4", "1E-4", "1.5e4", "-2e+3"])
def test_a_number_that_yaml_reads_as_text_is_refused_for_a_scheduler_too(text):
    told = f"YAML reads {text} of beta_start as text; write a point"
    with pytest.raises(ConfigError, match=re.escape(told)):
        load_options(
            UpscaleOptions, "upscale", None, [f"upscale.sampler_options={{beta_start: {text}}}"]
        )
