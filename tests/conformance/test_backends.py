"""All our backends against the public conformance kit, in both precisions."""

import pytest
from exact import dtypes

from cmcore import testing


@pytest.mark.usefixtures("x64")
@dtypes
@pytest.mark.parametrize("check", testing.CHECKS, ids=lambda check: check.__name__)
def test_backend(backend, check, dtype):
    check(backend, dtype)
