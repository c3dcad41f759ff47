#!/usr/bin/env bash
# Tests that pytest-xdist shall keep together run apart, silently, with pytest 9.2.
#
# Versions: pytest-xdist 3.8.0 with pytest 9.2.0; with pytest 9.1.1 it works.
# Expected: `--dist loadgroup` sends all tests of one `xdist_group` to one worker.
# Seen:     with pytest 9.2.0 they are spread over both workers: xdist writes the group into an item's private
#           `_nodeid`, and its scheduler gets ids without it. Nothing warns; who keeps tests of one GPU together
#           this way has two on it at once.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

new_environment pytest==9.2.0 pytest-xdist==3.8.0
cat >test_groups.py <<'END'
import os
import time

import pytest


@pytest.mark.xdist_group("gpu")
@pytest.mark.parametrize("number", range(8))
def test_worker(number):
    time.sleep(0.2)
    with open("workers.txt", "a") as file:
        file.write(os.environ["PYTEST_XDIST_WORKER"] + "\n")
END
workers() {  # how many workers ran the group
    rm -f workers.txt
    "$python" -m pytest -q -p no:cacheprovider -n 2 --dist loadgroup test_groups.py >/dev/null
    sort -u workers.txt | wc -l
}
new=$(workers)
add_packages pytest==9.1.1
old=$(workers)
echo "workers that ran one group of 8 tests: $new with pytest 9.2.0, $old with pytest 9.1.1"
if [ "$new" -ne 2 ] || [ "$old" -ne 1 ]; then
    echo "changed: another number of workers"
    exit 1
fi
echo "as recorded: pytest-xdist 3.8.0's groups have no effect with pytest 9.2.0"
