"""The storage of SCIM resources keeps the rules that scim2-server's own suite checks, on both databases."""

from __future__ import annotations

import pytest
from scim2_models import ScimProvider
from scim2_server.testing import ScimStorageContract

from relay.store.database import Database
from relay.store.scim import ScimTables
from relay.web.scim_service import provider as served


class TestScimTables(ScimStorageContract):
    @pytest.fixture
    def provider(self) -> ScimProvider:
        return served()

    @pytest.fixture
    def storage(self, database: Database, provider: ScimProvider) -> ScimTables:
        return ScimTables(database, "directory", provider)


# Cursors are not offered, and the suite would only skip what it has on them.
for _name in [name for name in dir(ScimStorageContract) if name.startswith("test_cursor")]:
    setattr(TestScimTables, _name, None)
