from __future__ import annotations

import pytest
from torch import nn

from omniloom.errors import ConfigError
from omniloom.projectors.own import Own


def test_a_modality_claims_its_module_once():
    own = Own()
    own.claim("depth_map", lambda: nn.Linear(2, 2))
    first = own["depth_map"]
    own.claim("depth_map", lambda: nn.Linear(2, 2))
    assert own.of("depth_map", nn.Identity()) is first and list(own) == ["depth_map"]


def test_a_modality_that_was_not_served_is_refused_with_the_ones_that_were():
    own = Own()
    own.claim("depth_map", lambda: nn.Linear(2, 2))
    with pytest.raises(ConfigError, match=r"Identity has no parameters.*'depth_mop'.*Did you mean 'depth_map'"):
        own.of("depth_mop", nn.Identity())


def test_a_name_that_the_container_needs_for_itself_is_refused():
    with pytest.raises(ConfigError, match="another name"):
        Own().claim("type", lambda: nn.Linear(2, 2))
