"""Who owns which memberships. Pure.

Users and groups may both tell who is in which group, and what is given is owned as a whole: a user with `groups` is in no
other, a group with `members` has no other. A membership that both name, or one names and the other thereby excludes, would
have two owners, so whoever names one holds a share in the other's whole, which the other has alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from reconcilers.contract import ExternalId
from reconcilers.storage.logins import group_name, user_name
from schemas import storage

OF_USER: Final = "storage.user/groups"
"""All memberships of a user."""
OF_GROUP: Final = "storage.group/members"
"""All memberships in a group."""


def parts_of_user(setting: str, value: storage.User) -> Sequence[ExternalId]:
    """Its memberships, when it tells them."""
    return () if value.groups is None else (ExternalId(OF_USER, user_name(setting, value)),)


def shares_of_user(_setting: str, value: storage.User) -> Sequence[ExternalId]:
    """Memberships in the groups that it names: no longer the groups' alone."""
    return [ExternalId(OF_GROUP, name) for name in value.groups or ()]


def parts_of_group(setting: str, value: storage.Group) -> Sequence[ExternalId]:
    """Its memberships, when it tells them."""
    return () if value.members is None else (ExternalId(OF_GROUP, group_name(setting, value)),)


def shares_of_group(_setting: str, value: storage.Group) -> Sequence[ExternalId]:
    """Memberships of the users that it names: no longer the users' alone."""
    return [ExternalId(OF_USER, name) for name in value.members or ()]
