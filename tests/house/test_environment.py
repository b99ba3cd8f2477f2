"""environment.yml asks for what pyproject.toml asks for."""

import tomllib

import yaml
from packaging.requirements import Requirement

CONDA_NAMES = {"python-xxhash": "xxhash", "pytorch": "torch"}


def requirements(lines: list[str]) -> set[str]:
    """Requirements in one spelling, under their names on the Python package index."""
    found = set()
    for line in lines:
        requirement = Requirement(line)
        requirement.name = CONDA_NAMES.get(requirement.name, requirement.name)
        found.add(str(requirement))
    return found


def test_conda_and_pip_users_get_the_same_requirements(root):
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    *conda, pip = yaml.safe_load((root / "environment.yml").read_text())["dependencies"]
    *direct, ours = pip["pip"]
    assert ours == "--editable ."
    assert requirements(conda + direct) - {"pip"} == requirements(
        [*project["dependencies"], f"python{project['requires-python']}"]
    )


def test_conda_forge_is_the_only_channel(root):
    environment = yaml.safe_load((root / "environment.yml").read_text())
    assert environment["channels"] == ["conda-forge", "nodefaults"]
