#!/usr/bin/env bash
# A Hydra sweep reads its YAML files again for every job: an edit changes the jobs that have not begun.
#
# Versions: hydra-core 1.3.8 (omegaconf 2.3.1).
# Expected: a sweep runs what it was started with; multirun.yaml, which it saves at the start, says with what.
# Seen:     an edit of a file while the first job runs is in all later jobs, and multirun.yaml keeps the old value.
#           Only each job's own .hydra/config.yaml tells. So a sweep that runs for hours must compose beforehand.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

new_environment hydra-core==1.3.8 omegaconf==2.3.1
mkdir conf
printf 'job: 0\ncache: FP16\n' >conf/config.yaml
cat >app.py <<'END'
from pathlib import Path

import hydra


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(config) -> None:
    print(f"job {config.job}: cache {config.cache}")
    Path("conf/config.yaml").write_text("job: 0\ncache: Q4\n")  # what somebody edits meanwhile


main()
END
"$python" app.py --multirun job=1,2,3 hydra.sweep.dir=out hydra.job.chdir=false >seen.txt
grep '^job' seen.txt
echo "multirun.yaml: $(grep '^cache' out/multirun.yaml); job 3: $(grep '^cache' out/2/.hydra/config.yaml)"
if [ "$(grep '^job' seen.txt | tr '\n' ';')" != "job 1: cache FP16;job 2: cache Q4;job 3: cache Q4;" ] ||
    ! grep -q '^cache: FP16' out/multirun.yaml; then
    echo "changed: other values"
    exit 1
fi
echo "as recorded: hydra-core 1.3.8 composes each job of a sweep when it starts"
