import re
import subprocess
from pathlib import Path

import pytest

from proxy.settings import Settings, variable

ROOT = Path(__file__).parents[1]
PACKAGES = ("proxy", "dashboard")
WITHOUT_TESTS_OF_THEIR_OWN = {
    "proxy/errors.py": "names and messages; each is met where it is raised",
    "dashboard/errors.py": "names and messages; each is met where it is raised",
    "proxy/core/model.py": "nouns; its one function is met in test_identity.py",
}
# Written apart, so that this file does not find itself.
REGISTRIES = re.compile(
    r"https?://[^\s\"']*/(?:simple|packages/[0-9a-f]{2})/"
    r"|https?://[^\s\"']*/-/[^\s\"']*\.tgz"
    r"|(?:extra-)?index-" + "url"
)
MACHINES = re.compile("/" + r"(?:root|home/[a-z]+|work|farm)" + "/|/tmp/" + "bash")
PATHS_OF_EXAMPLES = {"/home/ada/"}


def _modules() -> list[str]:
    return sorted(
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
        if path.name != "__init__.py"
    )


def _tracked() -> list[Path]:
    try:
        listed = subprocess.run(  # noqa: S603 - a fixed command
            ["git", "-C", str(ROOT), "ls-files", "-z"],  # noqa: S607 - git from the PATH
            capture_output=True,
            check=True,
            text=True,
        )
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    return [path for name in listed.stdout.split("\0") if name and (path := ROOT / name).is_file()]


def _test_of(module: str) -> Path:
    path = Path(module)
    stem = path.stem.strip("_")
    return ROOT / "tests" / path.parent / f"test_{stem}.py"


@pytest.mark.parametrize("module", _modules())
def test_each_module_has_its_tests(module: str) -> None:
    """Under the same path, or there is a reason why not."""
    exempt = module in WITHOUT_TESTS_OF_THEIR_OWN
    assert _test_of(module).is_file() != exempt


def test_no_exception_outlives_its_module() -> None:
    """The list above names modules that are there."""
    assert set(WITHOUT_TESTS_OF_THEIR_OWN) <= set(_modules())


def test_no_tracked_file_names_a_registry_or_a_machine() -> None:
    """Locks hold hashes; where packages come from is up to whoever installs."""
    found = []
    for path in _tracked():
        text = path.read_text(encoding="utf-8", errors="replace")
        if REGISTRIES.search(text) and path.name != "Makefile":  # it switches the option off
            found.append(f"{path.name}: registry")
        if set(MACHINES.findall(text)) - PATHS_OF_EXAMPLES:
            found.append(f"{path.name}: machine")
    assert not found


@pytest.mark.parametrize("lock", ["build", "run", "dev", "e2e"])
def test_every_locked_package_has_hashes(lock: str) -> None:
    """And an exact version; nothing is taken from a path or an address."""
    text = (ROOT / "requirements" / f"{lock}.txt").read_text(encoding="utf-8")
    packages = text.replace("\\\n", " ").splitlines()
    assert packages
    for package in packages:
        assert re.match(r"[a-z0-9-]+==[0-9][\w.]* .*--hash=sha256:[0-9a-f]{64}", package)
        assert "@" not in package


def test_locks_agree_with_each_other() -> None:
    """What is tested is what runs: a package has one version in all of them."""
    versions: dict[str, set[str]] = {}
    for lock in (ROOT / "requirements").glob("*.txt"):
        for name, marked in re.findall(
            r"^([a-z0-9-]+)==(\S+)", lock.read_text("utf-8"), re.MULTILINE
        ):
            versions.setdefault(name, set()).add(marked)
    several = {name for name, found in versions.items() if len(found) > 1}
    assert several <= {"numpy"}  # of the end-to-end tests, where old Pythons get an old one


@pytest.mark.parametrize("setting", Settings.model_fields)
def test_every_setting_is_in_the_readme(setting: str) -> None:
    """By the name of its variable."""
    readme = ROOT / "README.md"
    if not readme.is_file():
        pytest.skip("there is no README.md yet")
    text = readme.read_text(encoding="utf-8")
    assert re.search(rf"\b{variable(setting)}\b", text)
