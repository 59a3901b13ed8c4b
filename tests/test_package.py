"""The package as a whole: public names, cost of its import, errors, layers, lists of dependencies."""

import ast
import functools
import importlib
import inspect
import json
import pkgutil
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

import pratipad_nb
from pratipad_nb import errors

ROOT = Path(__file__).parents[1]
MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(pratipad_nb.__path__, "pratipad_nb.")
    if "__main__" not in module.name
)
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


# -- public names --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", pratipad_nb.__all__)
def test_every_public_name_can_be_imported_and_is_described(name):
    assert inspect.getdoc(getattr(pratipad_nb, name))


def test_public_names_are_listed_by_dir_and_others_are_refused():
    assert set(pratipad_nb.__all__) <= set(dir(pratipad_nb))
    with pytest.raises(AttributeError, match="no attribute 'Devise'"):
        _ = pratipad_nb.Devise


def test_what_type_checkers_see_is_what_is_public():
    tree = ast.parse(Path(pratipad_nb.__file__).read_text())
    guarded = next(node for node in tree.body if isinstance(node, ast.If))
    assert sorted(alias.asname for node in guarded.body for alias in node.names) == pratipad_nb.__all__


@pytest.mark.parametrize("name", ["pratipad_nb", *MODULES])
def test_a_module_says_what_it_owns_and_lists_its_names_in_order(name):
    module = importlib.import_module(name)
    assert module.__doc__
    assert module.__doc__.strip()
    listed = getattr(module, "__all__", [])
    # The linter's order: constants, classes, functions.
    assert listed == sorted(listed, key=lambda each: (not each.isupper(), not each[0].isupper(), each))
    assert [each for each in listed if not hasattr(module, each)] == []


def public(kind):
    return {name for name in dir(kind) if not name.startswith("_")}


@pytest.mark.parametrize(
    ("name", "of_the_twin_alone"),
    [
        ("Cloud", {"connect", "opened_reader"}),  # it connects when it is first used, and hands no reader out
        ("Device", {"described"}),
        ("Gateway", {"described"}),
    ],
)
def test_a_handle_and_its_asynchronous_twin_have_the_same_names(name, of_the_twin_alone):
    twin, handle = public(getattr(pratipad_nb, f"Async{name}")), public(getattr(pratipad_nb, name))
    assert handle - twin == set()
    assert twin - handle <= of_the_twin_alone


def test_an_error_that_can_be_caught_is_a_public_name():
    first = {
        each.__name__ for each in errors.PratipadError.__subclasses__() if each.__module__ == errors.__name__
    }
    assert first | {"PratipadError", "OneWayError"} <= set(pratipad_nb.__all__)


def test_the_version_is_the_distributions():
    assert pratipad_nb.__version__ == PROJECT["version"]


# -- what an import costs ------------------------------------------------------------------------------------

HEAVY = (
    "IPython",
    "anywidget",
    "cryptography",
    "ipywidgets",
    "matplotlib",
    "networkx",
    "pandas",
    "pydantic",
    "typer",
)


def imported_by(code):
    """Return which of the heavy libraries a fresh interpreter has loaded after `code`."""
    script = f"{code}\nimport sys\nprint(*[name for name in {HEAVY!r} if name in sys.modules])"
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, timeout=30, check=True
    )
    return run.stdout.split()


@pytest.mark.parametrize(
    "code",
    [
        "import pratipad_nb",
        "from pratipad_nb import Device, HostSensor, AsyncDevice, Message",
        "from pratipad_nb import Cloud",
        "from pratipad_nb import Processor, parse, NotationError",
    ],
)
def test_what_devices_and_clouds_need_imports_nothing_of_a_notebook(code):
    assert imported_by(code) == []


def test_a_flow_and_a_preview_import_neither_jupyter_nor_plots():
    assert set(imported_by("from pratipad_nb import Flow, preview")) <= {"networkx", "pydantic"}


def test_importing_the_package_alone_imports_none_of_its_rooms():
    script = (
        "import sys, pratipad_nb; print(*[name for name in sys.modules if name.startswith('pratipad_nb.')])"
    )
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=True
    )
    assert run.stdout.split() == []


# -- errors --------------------------------------------------------------------------------------------------

#: What is raised and caught inside, and why it is none of the tree.
INSIDE = {
    "HelpAsked": "a magic's --help is no mistake",
    "Signalled": "a signal is no error; the command line turns it into an exit code",
    "NotAcknowledged": "the simulated bus fails as the kernel's does, with an OSError",
}


def error_classes():
    """Return every exception that a module of the package defines."""
    found = {}
    for name in MODULES:
        for each in vars(importlib.import_module(name)).values():
            if (
                inspect.isclass(each)
                and issubclass(each, BaseException)
                and each.__module__.startswith("pratipad_nb")
            ):
                found[f"{each.__module__}.{each.__qualname__}"] = each
    return found


def test_every_error_that_leaves_the_package_is_of_one_tree():
    outside = {
        name
        for name, error in error_classes().items()
        if not issubclass(error, errors.PratipadError)
        and not error.__name__.startswith("_")
        and error.__name__ not in INSIDE
    }
    assert outside == set()


def test_the_drawn_tree_of_errors_is_the_real_one():
    drawn, path = {}, []
    for line in re.findall(r"^ *[│├└─ ]*\b[A-Z]\w+.*$", errors.__doc__.partition("::")[2], re.MULTILINE):
        depth = line.index(re.search(r"[A-Z]\w+", line).group())
        name = re.search(r"[A-Z]\w+", line).group()
        while path and path[-1][0] >= depth:
            path.pop()
        drawn[name] = path[-1][1] if path else None
        path.append((depth, name))
    real = {
        error.__name__: next(
            (base.__name__ for base in error.__bases__ if issubclass(base, errors.PratipadError)), None
        )
        for error in error_classes().values()
        if error.__module__ == "pratipad_nb.errors"
    }
    assert {name: parent for name, parent in drawn.items() if name in real} == real


# -- layers --------------------------------------------------------------------------------------------------


def test_imports_point_down_only():
    linter = Path(sys.executable).with_name("lint-imports")
    run = subprocess.run(
        [linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert run.returncode == 0, run.stdout


@pytest.mark.parametrize(
    ("library", "homes"),
    [
        ("IPython", {"notebook", "cli/notebooks.py"}),
        ("anywidget", {"notebook"}),
        ("cryptography", {"pki/authority.py", "pki/certificates.py"}),
        ("ipywidgets", {"notebook"}),
        (
            "nats",
            {
                "transport/nats.py",
                "transport/nats_api.py",
                "transport/nats_clients.py",
                "transport/nats_link.py",
                "transport/nats_closing.py",
                "transport/nats_errors.py",
            },
        ),
        ("pandas", {"cloud/dataframe.py", "session/inspection/step.py"}),  # the latter for its type alone
        ("smbus2", {"hardware/bus.py"}),
        ("traitlets", {"notebook", "cli/notebooks.py"}),
        ("typer", {"cli"}),
    ],
)
def test_a_library_is_imported_at_home_only(library, homes):
    package = Path(pratipad_nb.__file__).parent
    importing = re.compile(rf"^\s*(?:from|import) {library}\b", re.MULTILINE)
    users = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if importing.search(path.read_text())
    }
    assert {user for user in users if user not in homes and user.split("/")[0] not in homes} == set()


# -- attributes ----------------------------------------------------------------------------------------------


def own_classes():
    """Return the package's classes, by name, as their syntax trees."""
    trees = [ast.parse(path.read_text()) for path in Path(pratipad_nb.__file__).parent.rglob("*.py")]
    return {node.name: node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}


@functools.cache
def methods(kind):
    return {
        each.name: each for each in kind.body if isinstance(each, (ast.FunctionDef, ast.AsyncFunctionDef))
    }


@functools.cache
def of_self(node, context):
    """Return the names of attributes of `self` that `node` stores, or loads."""
    return {
        each.attr
        for each in ast.walk(node)
        if isinstance(each, ast.Attribute)
        and isinstance(each.ctx, context)
        and isinstance(each.value, ast.Name)
        and each.value.id == "self"
    }


def lineage(kind, classes):
    """Return `kind` and its base classes, as far as they are the package's."""
    bases = [ast.unparse(base).partition("[")[0] for base in kind.bases]
    return [kind, *(each for base in bases if base in classes for each in lineage(classes[base], classes))]


def made(kind, classes):
    """Return the attributes of a new instance: those of its classes, those `__init__` and helpers set."""
    kinds = lineage(kind, classes)
    body = [node for each in kinds for node in each.body]
    found = {ast.unparse(node.target) for node in body if isinstance(node, ast.AnnAssign)}
    found |= {ast.unparse(node.targets[0]) for node in body if isinstance(node, ast.Assign)}
    found |= {name for each in kinds for name, method in methods(each).items() if method.decorator_list}
    todo, seen = {"__init__"}, set()
    while todo:
        seen.add(name := todo.pop())
        for method in [methods(each)[name] for each in kinds if name in methods(each)]:
            found |= of_self(method, ast.Store)
            todo |= of_self(method, ast.Load) - seen
    return found


def test_every_attribute_is_there_from_the_beginning():
    classes, late = own_classes(), set()
    for name, kind in classes.items():
        stored = set().union(*(of_self(method, ast.Store) for method in methods(kind).values()))
        late |= {f"{name}.{attribute}" for attribute in stored - made(kind, classes)}
    assert late == set()


# -- dependencies --------------------------------------------------------------------------------------------


def required(extra=None):
    """Return the requirements of the distribution or an extra: name to versions, other extras followed."""
    lines = PROJECT["dependencies"] if extra is None else PROJECT["optional-dependencies"][extra]
    found = {}
    for requirement in map(Requirement, lines):
        if requirement.name == PROJECT["name"]:
            for each in requirement.extras:
                found |= required(each)
        else:
            found[canonicalize_name(requirement.name)] = requirement.specifier
    return found


def test_the_conda_environment_has_the_versions_of_the_notebooks_extra():
    listed = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    by_pip = next(entry["pip"] for entry in listed if isinstance(entry, dict))
    conda = [Requirement(entry) for entry in listed if isinstance(entry, str)]
    wheels = [Requirement(entry) for entry in by_pip if not entry.startswith("-")]
    versions = {canonicalize_name(each.name): each.specifier for each in (*conda, *wheels)}

    assert versions.pop("python") == SpecifierSet(PROJECT["requires-python"])
    versions.pop("pip")
    assert versions == required() | required("lab")
    assert "--editable ." in by_pip


def test_the_core_is_what_a_device_needs():
    assert sorted(required()) == ["lz4", "msgspec", "nats-py"]


def test_the_jupyterlab_extension_bears_the_packages_version_and_lies_where_jupyterlab_looks():
    described = json.loads((ROOT / "extensions" / "jupyterlab" / "package.json").read_text())
    assert described["version"] == pratipad_nb.__version__
    assert (ROOT / "extensions" / "jupyterlab" / described["jupyterlab"]["_build"]["load"]).is_file()
    installed = Path(sys.prefix) / "share" / "jupyter" / "labextensions" / described["name"] / "package.json"
    assert json.loads(installed.read_text())["name"] == described["name"]
