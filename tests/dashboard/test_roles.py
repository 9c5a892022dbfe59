import pytest

from dashboard.roles import ROLES, Role, Viewer


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
