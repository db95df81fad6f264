"""Memory that is freed is used again: the system need not clear its pages anew."""

import platform
import subprocess
import sys

import pytest

LAYERS = """
import resource, sys
import numpy as np
from restore.images import allocator
assert sys.argv[1] == "plain" or allocator.keep_freed_memory()
for layer in range(20):
    np.ones(2**24, np.float32)
    if layer == 1:
        begun = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - begun)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc is told to keep it")
def test_the_pages_of_a_layer_serve_the_next():
    def count_faults(how: str) -> int:
        command = [sys.executable, "-c", LAYERS, how]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    pages = 18 * 2**26 // 2**21  # if they are huge ones
    assert count_faults("plain") >= pages > count_faults("kept")
