"""Name the operation of a request from its method and path.

Paths are compared as they came, percent-encoding untouched, less what says only where the API is
mounted: `/v1`, `/openai/v1`, an Azure deployment, a doubled or a trailing slash, a few segments of
somebody's own in front of all that (`/api/v1`, `/inference/v1`, `/v1beta/openai`). What is known
stands in `registry`.
"""

import re
from dataclasses import replace
from functools import lru_cache
from itertools import islice

from proxy.core.registry import FAMILIES, REGISTRY, UNKNOWN, Operation

MAX_REMEMBERED_CHARACTERS = 256
MAX_LEADING_SEGMENTS = 6
MOUNT = re.compile(
    r"/+(?:openai/deployments/(?P<deployment>[^/]+)|openai/v1|openai|backend-api/codex|voice-live"
    r"|v1)/+"
)
_SLASHES = re.compile(r"/+")


def operation_of(method: str, path: str) -> Operation:
    """Return the operation that a request asks for, `unknown` where no line matches."""
    if len(path) > MAX_REMEMBERED_CHARACTERS:  # clients choose paths, and must not fill the memory
        return _find(method, path)
    return _remembered(method, path)


@lru_cache(maxsize=1024)
def _remembered(method: str, path: str) -> Operation:
    return _find(method, path)


def _find(method: str, path: str) -> Operation:
    """Look behind the first mount; where nothing is known there, behind a later one."""
    for slashes in islice(_SLASHES.finditer(path), 1 + MAX_LEADING_SEGMENTS):
        mount = MOUNT.match(path, slashes.start())
        operation = _find_behind(mount, method, path) if mount else UNKNOWN
        if operation is not UNKNOWN:
            return operation
    return UNKNOWN


def _find_behind(mount: re.Match[str], method: str, path: str) -> Operation:
    segments = [segment for segment in path[mount.end() :].split("/") if segment]
    for pattern, operation in REGISTRY.get((method, len(segments)), {}).items():
        if all(want in {"*", got} for want, got in zip(pattern, segments, strict=True)):
            deployment = mount["deployment"]
            return replace(operation, deployment=deployment) if deployment else operation
    if segments and segments[0] in FAMILIES:
        return Operation(name=segments[0], api_type=segments[0])
    return UNKNOWN
