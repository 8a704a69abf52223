"""Who may import whom: the table of rooms, held by reading every import in the source."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

MAY_IMPORT = {
    "envs": {"envs"},
    "clip_viewer": {"clip_viewer", "prefrl.feedback", "prefrl.errors"},
    "clip_viewer.control": {"prefrl.feedback", "prefrl.errors"},
    "clip_viewer.show": {"clip_viewer.control", "prefrl.errors"},
    "clip_viewer.__main__": {"prefrl.cli"},
    "prefrl.errors": set(),
    "prefrl.pixels": set(),
    "prefrl.ppo": {"prefrl.errors"},
    "prefrl.feedback": {"prefrl.errors"},
    "prefrl.rewards": {"prefrl.feedback", "prefrl.errors", "prefrl.pixels"},
    "prefrl.agents": {
        "prefrl.ppo", "prefrl.rewards", "prefrl.feedback", "prefrl.errors", "prefrl.pixels",
    },
    "prefrl.loop.checkpoint": {"prefrl.errors"},
    "prefrl.language": {
        "prefrl.ppo", "prefrl.rewards", "prefrl.feedback", "prefrl.loop.checkpoint",
        "prefrl.errors",
    },
    "prefrl.config": {
        "prefrl.agents", "prefrl.language", "prefrl.ppo", "prefrl.rewards", "prefrl.feedback",
        "prefrl.errors",
    },
    "prefrl.loop": {
        "prefrl.config", "prefrl.agents", "prefrl.language", "prefrl.ppo", "prefrl.rewards",
        "prefrl.feedback", "prefrl.errors", "prefrl.pixels",
    },
    "prefrl": {"prefrl", "envs", "clip_viewer"},
}  # fmt: skip
"""Room -> the rooms it may import besides itself; the longest name that fits is the room.

"prefrl" is the composition root: whatever has no row of its own.
"""
COMPOSITION_ROOT = (
    "prefrl.cli",
    "prefrl.commands",
    "prefrl.film",
    "prefrl.final_report",
    "prefrl.frozen",
    "prefrl.query_films",
    "prefrl.recipes",
    "prefrl.refit",
    "prefrl.run",
    "prefrl.sb3",
)
"""With `prefrl/__init__.py`, the only modules that may import `envs`; no room may import them."""
ONLY_IN = {
    "pygame": ("clip_viewer.show", "prefrl.watch", "benchmarks"),
    "transformers": ("prefrl.language",),
    "stable_baselines3": ("prefrl.sb3", "benchmarks"),
    "ale_py": ("envs", "benchmarks"),
    "pyarrow": ("prefrl.feedback.files", "prefrl.language.rows"),
}
"""Package -> the modules that may import it, at the top or inside a function."""
WITHOUT_TORCH = ("prefrl.feedback", "clip_viewer", "envs", "prefrl.errors")
NEVER = ("pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal")
PPO_MAY_IMPORT = ("torch", "prefrl")


def modules():
    """Every module of the packages: name -> path."""
    found = {}
    for folder in ("prefrl", "envs", "clip_viewer", "benchmarks"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imports(source, module, *, is_package):
    """(name, line) of all imports of a module, relative ones resolved, lazy ones too.

    >>> imports("from . import clips\\nimport os.path", "envs.dot", is_package=False)
    [('envs', 1), ('envs.clips', 1), ('os.path', 2)]
    """
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = module.split(".")[: None if is_package else -1]
            above = base[: len(base) - node.level + 1] if node.level else []
            origin = ".".join([*above, *([node.module] if node.module else [])])
            found += [(origin, node.lineno)]
            found += [(f"{origin}.{alias.name}", node.lineno) for alias in node.names]
    return found


def at_the_top(source, package):
    """Whether a module imports `package` as soon as it is imported itself."""
    late = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    early = [node for node in ast.parse(source).body if not isinstance(node, late)]
    text = ast.unparse(ast.Module(early, []))
    return any(within(name, package) for name, _ in imports(text, "x", is_package=False))


def within(name, *rooms):
    return any(name == room or name.startswith(room + ".") for room in rooms)


def room_of(name):
    """The row of the table that holds for a module: the longest name that fits."""
    return max((room for room in MAY_IMPORT if within(name, room)), key=len, default=None)


def every_import(names=None):
    for module, path in MODULES.items():
        if names is None or within(module, *names):
            source = path.read_text(encoding="utf-8")
            for name, line in imports(source, module, is_package=path.stem == "__init__"):
                yield module, name, f"{path.relative_to(ROOT)}:{line} imports {name}"


def is_ours(name):
    return within(name, "prefrl", "envs", "clip_viewer", "benchmarks", "tests")


def wrong_rooms(module, name):
    """Whether `module` may not import `name`."""
    room = room_of(module)
    if room is None or not is_ours(name) or within(name, room):
        return False
    if name == "prefrl":  # the other half of `from prefrl import x`, judged as prefrl.x
        return room in ("envs", "clip_viewer")
    allowed = MAY_IMPORT[room]
    return not within(name, *allowed) if room != "prefrl" else False


def test_arrows_between_rooms_point_down_only():
    assert [where for module, name, where in every_import() if wrong_rooms(module, name)] == []


def test_only_the_composition_root_imports_envs():
    wrong = [
        where
        for module, name, where in every_import(["prefrl", "clip_viewer"])
        if within(name, "envs") and module != "prefrl" and not within(module, *COMPOSITION_ROOT)
    ]
    assert wrong == []


@pytest.mark.parametrize("package", ONLY_IN)
def test_a_heavy_package_is_imported_in_its_own_place_only(package):
    wrong = [
        where
        for module, name, where in every_import()
        if within(name, package) and not within(module, *ONLY_IN[package])
    ]
    assert wrong == []


def test_prefrl_watch_imports_pygame_only_when_it_runs():
    lazy = "def late():\n    import pygame\n"
    assert not at_the_top(lazy, "pygame")
    assert at_the_top("import pygame.display\n" + lazy, "pygame")
    within_prefrl = [path for module, path in MODULES.items() if within(module, "prefrl")]
    assert [p for p in within_prefrl if at_the_top(p.read_text("utf-8"), "pygame")] == []


def test_what_must_open_at_once_imports_no_torch():
    heavy = ("torch", "safetensors.torch", "stable_baselines3", "transformers")
    wrong = [where for _, name, where in every_import(WITHOUT_TORCH) if within(name, *heavy)]
    assert wrong == []


def test_ppo_is_tensors_in_and_tensors_out():
    wrong = [
        where
        for _, name, where in every_import(["prefrl.ppo"])
        if not within(name, *PPO_MAY_IMPORT) and name.split(".")[0] not in sys.stdlib_module_names
    ]
    assert wrong == []


def test_nothing_of_ours_can_unpickle():
    assert [where for _, name, where in every_import() if within(name, *NEVER)] == []


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import prefrl.loop", "prefrl.loop"),
        ("from prefrl import loop", "prefrl.loop"),
        ("from prefrl.loop import train", "prefrl.loop"),
        ("from .. import loop", "prefrl.loop"),
        ("from ..loop.train import run", "prefrl.loop.train"),
        ("def late():\n    import prefrl.loop", "prefrl.loop"),
    ],
)
def test_an_import_is_found_however_it_is_written(source, found):
    names = [name for name, _ in imports(source, "prefrl.rewards.fit", is_package=False)]
    assert found in names
    assert any(wrong_rooms("prefrl.rewards.fit", name) for name in names)
    assert any(wrong_rooms("envs.dot", name) for name in names)


def test_a_package_resolves_its_relative_imports_within_itself():
    assert imports("from .clips import x", "envs", is_package=True)[0] == ("envs.clips", 1)
    assert imports("from . import x", "envs", is_package=True)[0] == ("envs", 1)


def test_the_table_is_about_modules_that_exist():
    assert {"envs.hidden", "prefrl.ppo.gae", "prefrl.rewards.fit"} <= set(MODULES)


@pytest.mark.parametrize("package", ["prefrl", "envs", "clip_viewer"])
def test_importing_the_package_loads_nothing_heavy(package):
    heavy = ("torch", "ale_py", "mujoco", "transformers", "pygame", "stable_baselines3")
    if package != "envs":
        heavy += ("gymnasium",)
    script = f"import sys, {package}; print(*(m for m in {heavy!r} if m in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == []


def test_the_viewer_shows_its_window_without_what_is_heavy():
    heavy = ("torch", "gymnasium", "ale_py", "mujoco", "cv2", "matplotlib")
    script = (
        "import sys, clip_viewer.show.window, prefrl.feedback, prefrl.commands.rate;"
        f"print(*(m for m in {heavy!r} if m in sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1].split() == []
