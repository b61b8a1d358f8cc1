from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.unit.graph import small_catalogue

if TYPE_CHECKING:
    from pixloom.graph import Catalogue


@pytest.fixture(scope="session")
def catalogue() -> Catalogue:
    return small_catalogue.small_catalogue()


@pytest.fixture
def photo_catalog() -> dict[str, Any]:
    return small_catalogue.photo_catalog()
