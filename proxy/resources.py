"""Where the files live that ship beside the code: schema.sql and pricing.yaml.

They stand at the top level of a checkout, where readers look for them, and inside the package in an
installed wheel.
"""

from pathlib import Path

from proxy.errors import ConfigurationError

_PACKAGE = Path(__file__).parent


def resource(name: str) -> Path:
    """Return the path of a file that belongs to the distribution."""
    for directory in (_PACKAGE, _PACKAGE.parent):
        if (path := directory / name).is_file():
            return path
    raise ConfigurationError(f"{name} is not beside the code in {_PACKAGE}: install it again")
