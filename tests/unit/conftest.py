"""Fixtures of the unit floor."""

from __future__ import annotations

import pytest

from pyrun.network import messages
from sample_network import NETWORK


@pytest.fixture(scope="session")
def template() -> messages.Template:
    """The template of the sample network, as a start reads it."""
    from pyrun.network import templates  # needs pyroute2

    parsed = messages.parsed(templates.text(NETWORK))
    assert parsed is not None
    return parsed
