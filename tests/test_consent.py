"""A recipe runs no code that its user did not allow, for that file, as it is."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from degradations import Recipe, RecipeError, consent
from degradations.ops import plugins

OP = "from degradations.ops import Op\nopen({!r}, 'w').close()\nclass Own(Op):\n    pass\n"
ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def home(monkeypatch, tmp_path):
    modules = set(sys.modules)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))

    def forget():
        for kept in (plugins._registered, plugins._files, plugins._runs, consent._here):
            kept.clear()
        for name in set(sys.modules) - modules:
            del sys.modules[name]

    yield forget
    forget()


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "mine" / "mine.yaml"
    path.parent.mkdir()
    path.write_text(yaml.safe_dump({"name": "mine", "steps": [{"kind": "my_ops.Own"}]}))
    (path.parent / "my_ops.py").write_text(OP.format(str(tmp_path / "ran")))
    return path


def test_code_runs_once_it_was_allowed_and_until_it_changes(recipe, home, tmp_path):
    code = recipe.parent / "my_ops.py"
    with pytest.raises(RecipeError, match=r"my_ops\.py: the recipe would run this .*--allow-code"):
        Recipe.load(recipe)
    assert not (tmp_path / "ran").exists()
    assert Recipe.load(recipe, allow_code=True).steps[0].kind == "my_ops.Own"
    assert (tmp_path / "ran").exists()
    home()
    assert Recipe.load(recipe).steps[0].kind == "my_ops.Own"  # it is kept
    home()
    elsewhere = tmp_path / "elsewhere"
    recipe.parent.rename(elsewhere)
    with pytest.raises(RecipeError, match="--allow-code"):
        Recipe.load(elsewhere / "mine.yaml")
    elsewhere.rename(recipe.parent)
    code.write_text(code.read_text() + "\n")
    with pytest.raises(RecipeError, match="--allow-code"):
        Recipe.load(recipe)


def test_what_lies_compiled_beside_code_is_not_run(recipe, home, tmp_path):
    import importlib.util
    import py_compile

    code = recipe.parent / "my_ops.py"
    good, stamp = code.read_text(), (10**9, 10**9)
    bad = good.replace(str(tmp_path / "ran"), str(tmp_path / "bad"))
    code.write_text(bad)
    os.utime(code, stamp)
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    py_compile.compile(
        str(code), importlib.util.cache_from_source(str(code)), invalidation_mode=mode
    )
    code.write_text(good)
    Recipe.load(recipe, allow_code=True)
    assert (tmp_path / "ran").exists() and not (tmp_path / "bad").exists()


@pytest.mark.parametrize("kept", [b"[]", b"\0", b"{", b'{"a": 1}'])
def test_a_spoilt_record_of_consent_allows_nothing(recipe, kept, home):
    Recipe.load(recipe, allow_code=True)
    home()
    consent.consent_file().write_bytes(kept)
    with pytest.raises(RecipeError, match="--allow-code"):
        Recipe.load(recipe)


def test_a_home_that_cannot_be_written_keeps_it_for_the_process(recipe, tmp_path, home):
    (tmp_path / "config").write_text("a file")
    Recipe.load(recipe, allow_code=True)
    plugins._registered.clear()
    del sys.modules["my_ops"]
    Recipe.load(recipe)


KINDS = [
    *("antigravity.Own", "this.Own", "turtle.Own", "idlelib.idle.X", "lib2to3.pytree.X"),
    *("os.system", "subprocess.Popen", "pty.spawn", "webbrowser.open", "_ctypes.X", "nt.X"),
    *("diffusers.pipelines.X", "transformers.AutoModel", "torch.hub.load", "xml.sax.X", "a.b.c.D"),
    *(
        "my_ops.Own",
        "pkg.sub.Own",
        "..Own",
        ".x",
        "x.",
        "__main__.X",
        "sys.modules",
        "..my_ops.Own",
    ),
]
STEP = "name: x\nsteps:\n- kind: "
TEXTS = [
    *(
        f"name: x\nsteps: !!python/object/apply:{called} ['touch ran']"
        for called in ("os.system", "subprocess.Popen", "builtins.exec", "my_ops.Own")
    ),
    "name: !!python/name:my_ops.Own x\nsteps: []",
    "name: x\nsteps: !!python/module:my_ops x",
    "!!python/object/new:my_ops.Own {}",
    "!include my_ops.py",
    "name: x\nimport: my_ops\nplugins: [my_ops]\nsteps: []",
    "name: x\nbase: ./my_ops.py\nsteps: []",
    f"{STEP}jpeg\n  quality: !!python/object/apply:os.system ['touch ran']",
    f"{STEP}jpeg\n  kind: my_ops.Own",
    f"{STEP}maybe\n  p: 1\n  step: [{{kind: my_ops.Own}}]",
    f"{STEP}shuffled\n  steps:\n  - kind: my_ops.Own",
    f"{STEP}one_of\n  steps:\n  - kind: my_ops.Own\n  - kind: jpeg",
    f"{STEP}albumentations\n  transform: my_ops.Own",
    f"{STEP}albumentations\n  transform: os.system\n  args: ['touch ran']",
    f"{STEP}albumentations.Lambda\n  image: my_ops.Own",
    f"{STEP}'my_ops:Own'",
    f"{STEP}'file:my_ops.py'",
    f"{STEP}'http://evil.example/ops.py'",
    f"{STEP}[my_ops, Own]",
    f"{STEP}{{my_ops: Own}}",
]
AUDIT = """
import sys
sys.path[:0] = [sys.argv[2]]
from degradations import Recipe, RecipeError
from degradations.errors import RecipeError
# a library of ours, which a recipe may name
step = {"kind": "albumentations", "transform": "MedianBlur"}
Recipe.model_validate({"name": "x", "steps": [step]})
seen = []
watched = ("import", "exec", "socket.connect", "subprocess.Popen", "os.system", "os.exec")
sys.addaudithook(lambda event, args: event in watched and seen.append((event, str(args)[:80])))
import json
for path in json.loads(sys.argv[1]):
    try:
        Recipe.load(path)
        print("loaded", path)
    except RecipeError as error:
        assert str(path) in str(error)
# what is looked for, and not there, is no code that ran
print(json.dumps([one for one in seen if not one[1].startswith("('_ctypes'")]))
"""


def test_no_recipe_imports_anything_by_itself(tmp_path):
    (tmp_path / "pkg").mkdir()
    evil = f"open({str(tmp_path / 'ran')!r}, 'w').close()\n"
    for name in ("my_ops.py", "pkg/__init__.py", "pkg/sub.py"):
        (tmp_path / name).write_text(evil)
    paths = []
    for number, kind in enumerate(KINDS):
        for place, step in enumerate(
            ({"kind": kind}, {"kind": "maybe", "p": 1, "step": {"kind": kind}})
        ):
            folder = tmp_path / f"{number}_{place}"
            folder.mkdir()
            (folder / "my_ops.py").write_text(evil)
            path = folder / "mine.yaml"
            path.write_text(yaml.safe_dump({"name": "x", "steps": [step]}))
            paths.append(str(path))
    for number, text in enumerate(TEXTS):
        path = tmp_path / f"{number}.yaml"
        path.write_text(text)
        paths.append(str(path))
    assert len(paths) >= 50
    done = subprocess.run(
        [sys.executable, "-c", AUDIT, json.dumps(paths), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout.splitlines()[-1])
    assert seen == [] and "loaded" not in done.stdout and not (tmp_path / "ran").exists()
