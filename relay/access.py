"""What Velt shows of who may open what: an answer of permissions/get, with Velt's own words for it. Pure.

https://docs.velt.dev/api-reference/rest-apis/v2/auth/get-permissions tells of each resource a role, or an error with a
code; https://docs.velt.dev/key-concepts/overview ("Access Types") tells who else may open a folder or document.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from relay.model import Outcome, Resource


class AccessType(StrEnum):
    """Who may open a folder or document without a grant: whoever is signed in, its organization's members, nobody."""

    PUBLIC = "public"
    ORGANIZATION_PRIVATE = "organizationPrivate"
    RESTRICTED = "restricted"


@dataclass(frozen=True, slots=True)
class Access:
    """What permissions/get says of one user and one resource, in Velt's own words; None where it says nothing.

    `role`: viewer or editor. `access_type`: mostly an AccessType. `error_code`: permission_denied, does_not_exist or
    something_went_wrong, and `error` the sentence beside it.
    """

    role: str | None = None
    access_type: str | None = None
    error_code: str | None = None
    error: str | None = None

    @property
    def is_public(self) -> bool:
        return self.access_type == AccessType.PUBLIC

    @property
    def is_for_members(self) -> bool:
        return self.access_type == AccessType.ORGANIZATION_PRIVATE

    @property
    def does_not_exist(self) -> bool:
        return self.error_code == "does_not_exist"

    @property
    def is_denied(self) -> bool:
        return self.error_code == "permission_denied"

    @property
    def trouble(self) -> str:
        """The error, in words."""
        return f"{self.error_code}: {self.error or 'no message'}"


@dataclass(frozen=True, slots=True)
class Permissions:
    """What came of asking permissions/get.

    `outcome.answer` is REMOVED for Velt's success. `access`: by user id, what was told of which resource; also what a
    NOT_FOUND tells in its details.
    """

    outcome: Outcome
    access: Mapping[str, Mapping[Resource, Access]] = field(default_factory=dict)


def is_open_to_member(resource: Resource, access: Mapping[Resource, Access]) -> bool:
    """Whether the person of this answer is a member of the resource's organization, whose members may open it."""
    membership = access.get(resource.organization)
    return access[resource].is_for_members and membership is not None and membership.role is not None
