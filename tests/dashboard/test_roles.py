import pytest

from dashboard.roles import ROLES, Role, Viewer, is_scope


@pytest.mark.parametrize(
    ("role", "sees_users", "may_export", "is_admin"),
    [("admin", True, True, True), ("finance", True, True, False), ("viewer", False, False, False)],
)
def test_a_role_says_what_may_be_seen_and_done(
    role: Role, *, sees_users: bool, may_export: bool, is_admin: bool
) -> None:
    """There are three of them."""
    viewer = Viewer(name="ada", role=role, via="token")
    assert (viewer.sees_users, viewer.may_export, viewer.is_admin) == (
        sees_users,
        may_export,
        is_admin,
    )
    assert role in ROLES


@pytest.mark.parametrize(
    ("scopes", "reads", "exports", "owns"),
    [
        (None, True, True, False),
        ({"usage:read"}, True, False, False),
        ({"exports:read"}, False, True, False),
        ({"user:ada"}, False, False, True),
    ],
    ids=str,
)
def test_scopes_narrow_a_role(
    scopes: set[str] | None, *, reads: bool, exports: bool, owns: bool
) -> None:
    """And take from an admin what only a whole one may do."""
    kept = None if scopes is None else frozenset(scopes)
    viewer = Viewer(name="ci", role="admin", via="token", scopes=kept)
    assert (viewer.may_read, viewer.may_export, viewer.owns("ada")) == (reads, exports, owns)
    assert viewer.is_admin is (scopes is None)
    assert not viewer.owns("bob")
    blind = Viewer(name="ci", role="viewer", via="token", scopes=kept)
    assert not blind.may_export  # a scope gives nothing that the role has not


def test_a_scope_is_one_of_few() -> None:
    """Or names a user."""
    assert all(map(is_scope, ("usage:read", "exports:read", "user:ada")))
    wrong = ("user:", "admin", "", None, 1, "user:" + "x" * 1024)
    assert not any(map(is_scope, wrong))
