"""What pyproject.toml promises, against what is on the disk."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import pytest

import rnem_world

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LINKED = {name: f"rnem_world.{name}" for name in ("envs", "agents", "benchmarks")}


def package_folders() -> dict[str, Path]:
    """Every folder with Python code, by the name under which it is imported."""
    folders = {}
    for top, name in {"rnem_world": "rnem_world", **LINKED}.items():
        for file in (ROOT / top).rglob("*.py"):  # rglob doesn't follow the two links
            parts = file.parent.relative_to(ROOT / top).parts
            folders[".".join((name, *parts))] = file.parent
    return folders


def imported_modules() -> set[str]:
    """Full names of the modules that the package imports anywhere, also inside functions."""
    modules = set()
    for folder in package_folders().values():
        for file in folder.glob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.Import):
                    modules |= {alias.name for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and node.level == 0:
                    modules.add(str(node.module))
    return modules


def normalised(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


def names(requirements: list[str]) -> set[str]:
    """The distributions that requirements ask for; those of an extra, imageio[ffmpeg] say, among them."""
    found = set()
    for requirement in requirements:
        match = re.match(r"([\w.-]+)(?:\[([\w,-]+)\])?", requirement)
        assert match is not None, requirement
        found.add(normalised(match[1]))
        extras = re.findall(r"[\w-]+", match[2] or "")
        for other in importlib.metadata.requires(match[1]) or [] if extras else []:
            if any(re.search(rf"extra == ['\"]{extra}['\"]", other) for extra in extras):
                found.add(normalised(re.split(r"[\s\[<>=!~;(]", other, maxsplit=1)[0]))
    return found


@cache
def installed_packages() -> Mapping[str, list[str]]:
    return importlib.metadata.packages_distributions()


def distributions_of(module: str) -> set[str]:
    found = installed_packages().get(module.partition(".")[0], [])
    return {normalised(name) for name in found}


def python(code: str, *flags: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *flags, "-c", code], capture_output=True, text=True, check=False, cwd=cwd
    )


def test_every_package_is_listed():
    listed = PROJECT["tool"]["setuptools"]["packages"]
    assert sorted(listed) == sorted(package_folders())
    for name, folder in package_folders().items():
        assert (folder / "__init__.py").is_file(), f"{name} has code and no __init__.py"


@pytest.mark.parametrize("top", LINKED)
def test_the_links_lead_to_the_folders_that_are_packaged(top):
    link = ROOT / "rnem_world" / top
    assert link.is_symlink()
    assert link.readlink() == Path("..") / top  # relative: a clone may stand anywhere
    assert link.resolve() == ROOT / top
    assert PROJECT["tool"]["setuptools"]["package-dir"][LINKED[top]] == top


COMPARED_WITH = ("simulusion", "tensordict", "torchrl")
"""What benchmarks/peers.py measures where somebody has installed it, and nothing else imports."""


def test_nothing_but_their_benchmark_imports_peers():
    folders = ("rnem_world", "agents", "benchmarks", "envs")
    importing = {
        path.name
        for folder in folders
        for path in (ROOT / folder).rglob("*.py")
        if re.search(rf"(import|from) ({'|'.join(COMPARED_WITH)})\b", path.read_text())
    }
    assert importing == {"peers.py"}


def test_what_is_imported_is_declared():
    optional = PROJECT["project"]["optional-dependencies"]
    extras = {name: entries for name, entries in optional.items() if name not in ("dev", "all")}
    declared = names(
        [*PROJECT["project"]["dependencies"], *(entry for extra in extras.values() for entry in extra)]
    )
    for module in sorted(imported_modules()):
        top = module.partition(".")[0]
        if top in sys.stdlib_module_names or top in ("rnem_world", *COMPARED_WITH):
            continue
        found = distributions_of(module)
        assert found, f"{module} is imported and not installed"
        assert found & declared, f"{module} is imported, but no dependency declares {' or '.join(found)}"


def test_what_is_declared_is_used():
    modules = imported_modules()
    used = {name for module in modules for name in distributions_of(module)}
    if "torch.utils.tensorboard" in modules:
        used.add("tensorboard")
    declared = [re.sub(r"\[.*\]", "", requirement) for requirement in PROJECT["project"]["dependencies"]]
    assert names(declared) - used == set()


def test_importing_is_cheap():
    heavy = ["torch", "matplotlib", "sklearn"]
    result = python(f"import sys, rnem_world; print([name for name in {heavy} if name in sys.modules])")
    assert result.stdout.strip() == "[]", result.stderr


def test_there_is_one_version():
    assert rnem_world.__version__ == PROJECT["project"]["version"]
    assert importlib.metadata.version("rnem-world") == PROJECT["project"]["version"]


def test_importing_again_registers_nothing_again():
    code = (
        "import importlib, gymnasium, rnem_world\n"
        "before = dict(gymnasium.registry)\n"
        "importlib.reload(rnem_world)\n"
        "rnem_world.envs.register_environments()\n"
        "assert gymnasium.registry == before\n"
        "print([name for name in before if name.startswith('RNEM-')])"
    )
    result = python(code, "-W", "error::UserWarning")
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    assert "RNEM-BallsReal-v0" in result.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel of a copy, so that nothing is left behind in the tree."""
    folder = tmp_path_factory.mktemp("wheel") / "tree"
    folder.mkdir()
    ignore = shutil.ignore_patterns("__pycache__")
    for name in ("rnem_world", *LINKED):
        shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=ignore)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    result = python("from setuptools import build_meta; build_meta.build_wheel('.')", cwd=folder)
    assert result.returncode == 0, result.stderr
    return next(folder.glob("*.whl"))


def test_the_wheel_holds_all_of_the_package_and_nothing_else(wheel):
    expected = {"rnem_world/py.typed"}
    for name, folder in package_folders().items():
        expected |= {f"{name.replace('.', '/')}/{file.name}" for file in folder.glob("*.py")}
    pretrained = ROOT / "rnem_world" / "pretrained"
    expected |= {
        f"rnem_world/pretrained/{file.relative_to(pretrained).as_posix()}" for file in pretrained.glob("*/*")
    }
    page = ROOT / "rnem_world" / "play" / "page"
    expected |= {f"rnem_world/play/page/{file.name}" for file in page.iterdir()}
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert held == expected


def test_the_wheel_works_beside_folders_of_the_same_names(wheel, tmp_path):
    """Half of all projects have folders of their own of these names."""
    for name in LINKED:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise ImportError('the wrong folder')")
    code = (
        f"import sys; sys.path[:0] = ['', {str(wheel)!r}]\n"
        "import rnem_world.envs, rnem_world.agents, rnem_world.benchmarks\n"
        "print(rnem_world.envs.__file__, rnem_world.agents.__file__, rnem_world.benchmarks.__file__)"
    )
    result = python(code, cwd=tmp_path)
    assert result.stdout.count(str(wheel)) == len(LINKED), result.stderr
