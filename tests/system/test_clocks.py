"""Which clock the gateway decides on. A real step of the wall clock is not for a test to make on this machine; the
engine, the look-ups and the sidecar are stepped in their own tests, with clocks of the tests' making.
"""

import re

from aipaging.adapters.steering.envoy.bootstrap import filter_source


def test_the_gateways_filter_reads_the_boot_clock_and_no_other() -> None:
    source = re.sub(r"--.*", "", filter_source())
    assert "CLOCK_BOOTTIME = 7" in source
    assert source.count("clock_gettime(") == 2, "its declaration and its one use"
    assert not re.search(r"timestamp\w*\s*\(|os\.(time|clock|date)|gettimeofday", source)
