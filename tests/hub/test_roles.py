"""One person's server belongs to that person; on a shared one everybody has a role."""

import pytest

from workbench.hub.roles import Rules
from workbench.hub.schema import CommandError

SHARED = Rules(is_shared=True, instructors=frozenset({"ida"}))


def test_on_a_server_of_one_person_everybody_who_is_in_is_that_person():
    rules = Rules(owner="ana")
    assert rules.actor("anonymous 7f") == "ana"
    assert rules.role("anonymous 7f", {"owner": "somebody"}) == "owner"
    assert not rules.is_instructor("ana")


@pytest.mark.parametrize(
    ("user", "state", "role"),
    [
        ("ana", {"owner": "ana"}, "owner"),
        ("bob", {"owner": "ana"}, None),
        ("ida", {"owner": "ana"}, None),
        ("bob", {"owner": "ana", "is_shared": True}, "viewer"),
        ("bob", {"owner": "ana", "is_shared": True, "drivers": ["bob"]}, "driver"),
        ("bob", {"owner": "ana", "is_shared": True, "drivers": "bob"}, "viewer"),
        ("bob", {"owner": "ana", "is_shared": "yes"}, None),
        ("bob", {"owner": "ana", "drivers": ["bob"]}, None),
        ("", {}, None),
    ],
)
def test_roles_on_a_shared_server(user, state, role):
    assert SHARED.role(user, state) == role


def test_a_viewer_does_not_drive():
    state = {"owner": "ana", "is_shared": True}
    SHARED.check_drive("ana", state)
    with pytest.raises(CommandError, match="bob may watch this run but not drive it") as refused:
        SHARED.check_drive("bob", state)
    assert refused.value.code == 403


def test_only_an_instructor_sees_the_class():
    SHARED.check_instructor("ida")
    with pytest.raises(CommandError, match="only an instructor") as refused:
        SHARED.check_instructor("ana")
    assert refused.value.code == 403
