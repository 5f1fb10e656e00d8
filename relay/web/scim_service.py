"""What the SCIM server offers and tolerates: its schemas, its capabilities, and what `active` means."""

from __future__ import annotations

import functools
from typing import Any

from pydantic import ValidationError
from scim2_models import (
    AuthenticationScheme,
    Bulk,
    ChangePassword,
    Error,
    ETag,
    Filter,
    Pagination,
    Patch,
    Resource,
    ScimPolicy,
    ScimProvider,
    ServiceProviderConfig,
    Sort,
)
from scim2_server.conditions import Conditions
from scim2_server.service import ScimService
from scim2_server.utils import load_default_resource_types, load_default_schemas

USER = "urn:ietf:params:scim:schemas:core:2.0:User"
GROUP = "urn:ietf:params:scim:schemas:core:2.0:Group"
ENTERPRISE = "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User"

MOST_RESULTS = 1000
PAGE = 100

# Not offered: a password must not be kept, the groups tell who is in them, and the rest has a syntax of its own,
# for which nobody's deactivation shall be refused. What is not in the schema is dropped like any unknown attribute.
_LEFT_OUT = frozenset({"password", "groups", "profileUrl", "photos", "x509Certificates"})

#: What identity providers do beyond the RFCs and must not be refused for: Microsoft's removal of members by value,
#: attributes and schemas of their own, an address that is to be changed but was never there.
#: https://learn.microsoft.com/entra/identity/app-provisioning/application-provisioning-config-problem-scim-compatibility
TOLERANT = ScimPolicy(
    unknown=ScimPolicy.Unknown.ignore,
    remove_value_as_filter=ScimPolicy.RemoveValue.apply,
    unmatched_path_filter=ScimPolicy.UnmatchedPathFilter.create,
)


@functools.cache
def provider() -> ScimProvider:
    """The users (with the enterprise extension) and groups that the relay serves, and how; the same one each time."""
    schemas = load_default_schemas()
    user = schemas[USER]
    user.attributes = [each for each in user.attributes or () if each.name not in _LEFT_OUT]
    resource_types = load_default_resource_types().values()
    return ScimProvider.from_discovery(schemas.values(), resource_types, config=_config(), policy=TOLERANT)


def _config() -> ServiceProviderConfig:
    bearer = AuthenticationScheme(
        type=AuthenticationScheme.Type.oauthbearertoken,
        name="Bearer token",
        description="The token that relay.yaml names for this source, in the Authorization header",
        primary=True,
    )
    return ServiceProviderConfig(
        patch=Patch(supported=True),
        bulk=Bulk(supported=False, max_operations=0, max_payload_size=0),
        filter=Filter(supported=True, max_results=MOST_RESULTS),
        change_password=ChangePassword(supported=False),
        sort=Sort(supported=True),
        etag=ETag(supported=True),
        pagination=Pagination(
            cursor=False,
            index=True,
            default_pagination_method=Pagination.DefaultPaginationMethod.index,
            default_page_size=PAGE,
            max_page_size=MOST_RESULTS,
        ),
        authentication_schemes=[bearer],
    )


class Service(ScimService):
    """The protocol, with the relay's reading of `active`.

    A user is active while `active` is true. A new user is, unless told otherwise. Removing `active` or setting it to
    null ends access as false does. A PUT that does not mention it leaves it as it was: RFC 7644 section 3.5.1 lets
    the server choose, and a client that does not manage `active` must not end or give access by an update.
    """

    @staticmethod
    def error_of(exception: Exception) -> Error:
        """The error as the library tells it, with what would be right where it tells only where it stopped."""
        error: Error = ScimService.error_of(exception)
        if isinstance(exception.__cause__, ValidationError):
            error.detail = _first_mistake(exception.__cause__)
        if (error.detail or "").startswith("invalid syntax"):
            error.detail = f'{error.detail}; wanted is such as userName eq "ada@example.com", texts in double quotes'
        return error

    def read_creation(self, resource_type: Any, body: bytes, content_type: str | None) -> Resource[Any]:
        resource = super().read_creation(resource_type, body, content_type)
        told: Any = resource
        if "active" in type(told).model_fields and told.active is None:
            told.active = True
        return resource

    def apply_replacement(
        self, current: Resource[Any], replacement: Resource[Any], conditions: Conditions
    ) -> Resource[Any] | None:
        stored: Any = current
        told: Any = replacement
        if "active" in type(told).model_fields and "active" not in told.model_fields_set:
            told.active = stored.active
        return super().apply_replacement(current, replacement, conditions)


def _first_mistake(found: ValidationError) -> str | None:
    first = found.errors(include_url=False)[0]
    if first["type"] in ("bool_parsing", "bool_type"):
        return f"{'.'.join(map(str, first['loc']))}: wanted is true or false"
    return Error.from_validation_error(first).detail
