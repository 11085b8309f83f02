"""Holds the house rules that a machine can hold: who may import whom, what no file may call, how a file begins."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "src" / "ami"
SOURCES = sorted(ROOT.rglob("*.py"))

# An import points to a lower layer or into the same part.
LAYERS = [
    {"", "types", "parallel", "cores", "files", "geometry"},
    {"data", "nn"},
    {"worlds", "models"},
    {"objectives", "planning", "memory", "reasoning"},
    {"training", "agent"},
    {"evaluation"},
    {"recipes"},
    {"cli", "server"},
    {"__main__"},
]
# Narrower than the layers: these are handed a world model, and never choose one.
ONLY = {
    "planning": {"types"},
    "memory": {"types", "files"},
    "reasoning": {"types", "files"},  # files: what was learned to be read lies beside the checkpoint
    "objectives": {"types", "parallel", "geometry", "nn", "models"},
}
NEVER = {
    "pickle": "can run code that a file brings along",
    "dill": "is pickle",
    "cloudpickle": "is pickle",
    "joblib": "is pickle",
    "shelve": "is pickle",
    "marshal": "can crash on a file that somebody made",
}
NO_CALL = {
    "eval": "runs what it reads",
    "exec": "runs what it reads",
    "globals": "use a plain dict from name to class",
    "hasattr": "give the class the method",
    "print": "return it; the command line shows it",
    "torch.load": "reads pickle; use safetensors",
    "torch.save": "writes pickle; use safetensors",
    "torch.manual_seed": "randomness is an argument",
    "np.random.seed": "randomness is an argument",
}
EDGE = {"cli", "server", "__main__"}  # where printing is the purpose
LENGTH = 400


def every_file(test):
    return pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())(test)


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def part_of(module: str) -> str:
    """The part of the package that ``ami.part.file`` belongs to; empty for the package itself."""
    return (module + "..").split(".")[1]


def part_at(path: Path) -> str:
    return path.relative_to(ROOT).with_suffix("").parts[0].replace("__init__", "")


def imports(source: ast.AST) -> list[str]:
    """Every module that a file imports, wherever in it; ``from ami import files`` counts as ``ami.files``."""
    found = []
    for node in ast.walk(source):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: write imports in full"
            found += [f"{node.module}.{alias.name}" if node.module == "ami" else node.module for alias in node.names]
    return found


def forbidden(part: str, module: str) -> str:
    """Why ``part`` may not import ``module``; empty if it may."""
    layer = {name: number for number, names in enumerate(LAYERS) for name in names}
    if module.split(".")[0] != "ami" or part_of(module) == part:
        return ""
    other = part_of(module)
    assert other in layer, f"{other!r} is not in the table of layers"
    if layer[other] >= layer[part]:
        return f"{part} (layer {layer[part]}) imports {module} (layer {layer[other]}); imports point down"
    if part in ONLY and other not in ONLY[part]:
        return f"{part} imports {module}; of the package it may import only {', '.join(sorted(ONLY[part]))}"
    if (
        part == "training"
        and module.startswith("ami.models.")
        and module.split(".")[2] not in ("checkpoint", "snapshot")
    ):
        return f"training imports {module}; it has never heard of any one model"
    return ""


@every_file
def test_imports_point_down(path):
    assert [why for module in imports(tree(path)) if (why := forbidden(part_at(path), module))] == []


@pytest.mark.parametrize(
    ("part", "module", "allowed"),
    [
        ("data", "ami.files", True),
        ("data", "torch", True),
        ("data", "ami.data.video", True),
        ("data", "ami.nn.tokenizers", False),
        ("types", "ami.files", False),
        ("models", "ami.nn.predictors", True),
        ("models", "ami.objectives", False),
        ("objectives", "ami.models.jepa", True),
        ("objectives", "ami.data.loader", False),
        ("planning", "ami.types", True),
        ("planning", "ami.models.jepa", False),
        ("planning", "ami.reasoning", False),
        ("training", "ami.models.checkpoint", True),
        ("training", "ami.models.jepa", False),
        ("recipes", "ami.models.jepa", True),
        ("evaluation", "ami.cli", False),
        ("cli", "ami.recipes", True),
    ],
)
def test_the_table_is_read_right(part, module, allowed):
    assert (forbidden(part, module) == "") is allowed


def test_imports_are_found_wherever_they_hide():
    source = (
        "import ami.cli\nfrom ami import files\ndef f():\n    from ami.nn.x import y\nif TYPE_CHECKING: import pickle"
    )
    assert sorted(imports(ast.parse(source))) == ["ami.cli", "ami.files", "ami.nn.x", "pickle"]


@every_file
def test_nothing_unsafe_or_hidden_is_called(path):
    source = tree(path)
    wrong = [f"import of {name}: it {NEVER[name]}" for name in imports(source) if name in NEVER]
    for node in ast.walk(source):
        if isinstance(node, ast.ExceptHandler) and (node.type is None or ast.unparse(node.type) == "Exception"):
            wrong.append(f"line {node.lineno}: never catch what you cannot mend")
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        if name in NO_CALL and not (name == "print" and part_at(path) in EDGE):
            wrong.append(f"line {node.lineno}: {name}: {NO_CALL[name]}")
        if name in ("np.load", "numpy.load") and "allow_pickle=False" not in map(ast.unparse, node.keywords):
            wrong.append(f"line {node.lineno}: np.load reads pickle unless allow_pickle=False is said")
    assert wrong == []


def _undocumented(body: list[ast.stmt]) -> list[str]:
    """Public functions, classes and methods without a docstring. What is inside a function is its own affair."""
    found = []
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            found += [] if ast.get_docstring(node) else [f"line {node.lineno}: {node.name}"]
            found += _undocumented(node.body) if isinstance(node, ast.ClassDef) else []
    return found


@every_file
def test_a_file_says_what_it_is_for_and_is_read_in_one_sitting(path):
    text = path.read_text(encoding="utf-8")
    opening = (ast.get_docstring(ast.parse(text)) or "").split("\n\n")[0]
    assert opening.endswith((".", "?")), "a file opens with one sentence: what it is for"
    assert len(text.splitlines()) <= LENGTH
    assert _undocumented(ast.parse(text).body) == []
