"""One version, wherever it is written."""

import json
import re
import tomllib
from importlib.metadata import version

import workbench


def normal(name: str) -> str:
    """A distribution's name as the package index compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def test_pyproject_package_and_metadata_agree(root):
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    assert project["version"] == workbench.__version__ == version("moe-workbench")


def test_javascript_packages_carry_the_same_version(tracked):
    versions = {json.loads(path.read_text())["version"] for path in tracked if path.name == "package.json"}
    assert versions <= {workbench.__version__}


def test_the_changelog_opens_with_what_is_unreleased_and_knows_every_tag(root):
    headings = re.findall(r"(?m)^## (.+)$", (root / "CHANGELOG.md").read_text())
    assert headings[0] == "Unreleased"
    assert all(re.fullmatch(r"\d+\.\d+\.\d+ - \d{4}-\d\d-\d\d", heading) for heading in headings[1:])


def test_the_constraints_are_exact_versions_and_cover_the_requirements(root):
    lines = [line for line in (root / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert [line for line in lines if not re.fullmatch(r"[\w.-]+==[\w.!]+", line)] == []
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    asked = [
        *project["dependencies"],
        *(line for lines in project["optional-dependencies"].values() for line in lines),
    ]
    names = {normal(re.match(r"[\w.-]+", line).group()) for line in asked} - {"moe-workbench"}
    assert names <= {normal(line.partition("==")[0]) for line in lines}
