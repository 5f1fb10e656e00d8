"""Whether a removal shows at Velt, by what permissions/get says. Pure.

https://docs.velt.dev/api-reference/rest-apis/v2/auth/get-permissions tells of each resource a role, or an error with a
code; https://docs.velt.dev/key-concepts/overview ("Access Types") tells who else may open a folder or document. A wrong
`confirmed` is worse than a wrong `still has access`, and what Velt does not say is never guessed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from relay import backoff
from relay.access import Access, Permissions, is_open_to_member
from relay.model import SECOND, Answer, Confirmation, Micros, Resource

#: Seconds after the removal at which Velt is asked what it shows. It may lag: only what it still shows at the last of
#: them is final.
ASKS = (5.0, 65.0, 665.0)


@dataclass(frozen=True, slots=True)
class Verdict:
    """`confirmation` None: it could not be known. `failed`: Velt had trouble, so that it is worth asking for long."""

    confirmation: Confirmation | None
    reason: str
    failed: bool = False


def judge(resource: Resource, user_id: str, told: Permissions) -> Verdict:
    """What an answer says about one removed resource of this user."""
    access = told.access.get(user_id, {})
    entry = access.get(resource)
    if entry is None:
        return _silent(resource, told)
    if entry.does_not_exist and entry.role is None:
        return Verdict(Confirmation.CONFIRMED, f"Velt says that the {resource.type} does not exist")
    still = _open_anyway(resource, entry, access) or _still_granted(resource, entry, access)
    if still is not None:
        return Verdict(Confirmation.STILL, still)
    if entry.is_denied:
        return Verdict(Confirmation.CONFIRMED, f"Velt says {entry.trouble}")
    if entry.error_code is not None:
        return Verdict(None, f"Velt says {entry.trouble}", failed=True)
    return _silent(resource, told)


def next_ask(verdict: Verdict, tries: int, removed_at: Micros, now: Micros, retry_after: float | None) -> Micros | None:
    """When to ask again after `tries` times (from 1), None when the verdict is final."""
    if verdict.confirmation is Confirmation.CONFIRMED:
        return None
    if verdict.failed:
        delay = backoff.next_delay(tries, retry_after)
        return None if delay is None else now + int(delay * SECOND)
    return next((moment for moment in _moments(removed_at) if moment > now), None)


def first_ask(removed_at: Micros) -> Micros:
    """When to ask for the first time."""
    return _moments(removed_at)[0]


def _moments(removed_at: Micros) -> list[Micros]:
    return [removed_at + int(seconds * SECOND) for seconds in ASKS]


def _silent(resource: Resource, told: Permissions) -> Verdict:
    """The answer does not speak of the resource."""
    if told.outcome.answer is Answer.REMOVED:
        return Verdict(None, f"Velt's answer says nothing about {resource}")
    return Verdict(None, told.outcome.reason, failed=told.outcome.answer in (Answer.RETRY, Answer.UNAUTHORIZED))


def _open_anyway(resource: Resource, entry: Access, access: Mapping[Resource, Access]) -> str | None:
    """Why somebody without a grant may open this folder or document."""
    if resource.organization_id is None:
        return None
    if entry.is_public:
        return (
            f"the {resource.type} is public: whoever is signed in may open it; "
            "set its accessType to restricted or organizationPrivate"
        )
    if is_open_to_member(resource, access):
        return (
            f"member of the organization {resource.organization_id}, whose members may open the {resource.type} "
            "(organizationPrivate); remove the organization too, or set its accessType to restricted"
        )
    return None


def _still_granted(resource: Resource, entry: Access, access: Mapping[Resource, Access]) -> str | None:
    """Why a role is still shown. Explicit grants beat inherited ones, and the explicit one is what was removed."""
    if entry.role is None:
        return None
    shown = f"Velt still shows the role {entry.role}"
    if resource.organization_id is None:
        return f"{shown}; Velt makes whoever signs in a member again while Auto-create Organization User is on"
    above = [folder for folder in access if folder.type == "folder" and folder != resource]
    above.append(resource.organization)
    givers = [str(giver) for giver in above if _role(access, giver) is not None]
    if givers:
        return f"{shown}; it may be inherited from {' or '.join(givers)}, where a role is shown too"
    return f"{shown}, and none on what it was seen to be inherited from: another folder gives it, or the grant stayed"


def _role(access: Mapping[Resource, Access], resource: Resource) -> str | None:
    return access[resource].role if resource in access else None
