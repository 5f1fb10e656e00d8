"""What Velt itself says about the resources that relay.yaml names: `python -m relay check --online`.

permissions/get is asked, as after a removal, because its answer is the one that tells both whether a folder or document
exists and its accessType; the calls that list documents and folders want an option of Velt's console. It has to be
asked about a user: one who does not exist stands in.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from relay.access import Access, Permissions
from relay.model import MAX_RESOURCES, Answer, Outcome, Resource
from relay.rules import RuleSet
from relay.velt import Velt

NOBODY = "velt-permission-relay-nobody"
NOWHERE = Resource("organization", "velt-permission-relay-no-such-organization")

REMINDER = (
    "what no question to Velt tells: Auto-create Organization User makes whoever signs in a member again; user tokens "
    "live for 48 hours and may outlast a removal; a Permission Provider grants whatever your own endpoint answers. "
    "Look at them in Velt's console"
)


@dataclass(frozen=True, slots=True)
class Findings:
    """`mistakes`: the keys or the way to Velt. `warnings`: resources as they are. `asked`: how many were looked at."""

    mistakes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    asked: int = 0


class _CannotGoOn(Exception):
    """Velt refuses the keys or cannot be asked; nothing else would be told either."""


def look(velt: Velt, rules: RuleSet, progress: Callable[[int, int], None]) -> Findings:
    """Ask about every folder and document of the rules that is no template; `progress` gets (looked at, of all)."""
    resources = sorted(rules.fixed, key=str)
    inner = [resource for resource in resources if resource.organization_id is not None]
    warnings: list[str] = []
    done = 0
    try:
        if not inner:
            _try_the_keys(velt, resources)
        for group in _groups(inner):
            warnings += _looked_at(velt, group)
            done += len(group)
            progress(done, len(inner))
    except _CannotGoOn as error:
        return Findings([str(error)], warnings, done)
    return Findings([], warnings, done)


def _groups(resources: Iterable[Resource]) -> Iterator[list[Resource]]:
    by_organization: defaultdict[str | None, list[Resource]] = defaultdict(list)
    for resource in resources:
        by_organization[resource.organization_id].append(resource)
    for group in by_organization.values():
        yield from (group[start : start + MAX_RESOURCES] for start in range(0, len(group), MAX_RESOURCES))


def _try_the_keys(velt: Velt, resources: Sequence[Resource]) -> None:
    _checked(velt.permissions([NOBODY], resources[:1] or [NOWHERE]))


def _looked_at(velt: Velt, group: Sequence[Resource]) -> list[str]:
    """What there is to say about resources of one organization."""
    told, outcome = _told(velt, group)
    if not told and outcome.answer is not Answer.REMOVED:
        names = ", ".join(map(str, group))
        return [f"{names}: could not be looked at, {outcome.reason}; look at the organizationId"]
    left = [resource for resource in group if resource not in told]
    if outcome.answer is Answer.ABSENT and len(left) < len(group):
        # Some do not exist, and for want of them Velt did not speak of the others.
        told |= _told(velt, left)[0] if left else {}
    return [sentence for resource in group if (sentence := _sentence(resource, told.get(resource), outcome))]


def _told(velt: Velt, group: Sequence[Resource]) -> tuple[dict[Resource, Access], Outcome]:
    answer = _checked(velt.permissions([NOBODY], group, must_exist=True))
    return dict(answer.access.get(NOBODY, {})), answer.outcome


def _checked(told: Permissions) -> Permissions:
    outcome = told.outcome
    if outcome.answer is Answer.UNAUTHORIZED:
        raise _CannotGoOn(f"VELT_API_KEY or VELT_AUTH_TOKEN is refused: {outcome.reason}")
    if outcome.answer is Answer.RETRY:
        raise _CannotGoOn(f"Velt could not be asked: {outcome.reason}")
    return told


def _sentence(resource: Resource, access: Access | None, outcome: Outcome) -> str | None:
    """What will probably be regretted about a resource, None where a removal has its effect."""
    if access is None:
        told = "it says nothing about it" if outcome.answer is Answer.REMOVED else outcome.reason
        return f"{resource}: Velt was asked, and {told}"
    if access.does_not_exist:
        return f"{resource}: does not exist in Velt; look at its id and organizationId"
    if access.access_type is None:
        return f"{resource}: Velt did not tell its accessType{_because(access)}"
    if access.is_public:
        return (
            f"{resource}: its accessType is public, so that whoever is signed in may open it and a removal changes "
            "nothing; set it to restricted or organizationPrivate"
        )
    if access.is_for_members:
        return (
            f"{resource}: its accessType is organizationPrivate, so that a removal has no effect for whoever stays a "
            f"member of {resource.organization_id}; remove organization {resource.organization_id} too, or set it to "
            "restricted"
        )
    return None


def _because(access: Access) -> str:
    return f" ({access.trouble})" if access.error_code else ""
