"""What the tests of files that are meant to harm ask of each."""

import time
import tracemalloc
from contextlib import suppress

import pytest

import cmcore as cm

SECONDS, BYTES = 1.0, 100 * 2**20


@pytest.fixture
def refused(tmp_path):
    """Expect that a file, or what is made of one, is refused, quickly and in little memory."""

    def check(content, match="cannot be read", name="a.bin", **options):
        path = tmp_path / name
        if isinstance(content, bytes):
            path.write_bytes(content)
        start = time.process_time()
        with pytest.raises(cm.Error, match=match) as told:
            cm.import_model(path, **options)
        assert time.process_time() - start < SECONDS
        assert len(str(told.value)) < 1000
        assert str(told.value).endswith(".")
        tracemalloc.start()
        try:
            with suppress(cm.Error):
                cm.import_model(path, **options)
            assert tracemalloc.get_traced_memory()[1] < BYTES
        finally:
            tracemalloc.stop()

    return check
