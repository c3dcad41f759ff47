"""Does any file or answer that anybody may have written end in a traceback, a hang, or memory without end?

Takes each reader in turn (tests/foreign_readers.py), changes a right input of it, and has it read. What the reader may
raise is a refusal; anything else is a traceback. An input that takes more than 2 s of CPU time counts as a hang.
The seed of the first input of each kind is printed, so that it can be made again.

    .venv/bin/python scripts/benchmarks/fuzz_readers.py --inputs 200000 --seconds 1200
"""

from __future__ import annotations

import argparse
import random
import resource
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.foreign_readers import changed, readers

HANG_S = 2


class Hang(BaseException):
    pass


def _hang(*_: object) -> None:
    raise Hang


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=600.0, help="ends after this, however many there were")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--reader", help="this one alone")
    asked = parser.parse_args()
    signal.signal(signal.SIGALRM, _hang)
    counts: Counter[tuple[str, str]] = Counter()
    spent: Counter[str] = Counter()
    found: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        known = [each for each in readers(Path(folder)) if asked.reader in (None, each.name)]
        scratch = {each.name: Path(folder) / f"scratch-{number}" for number, each in enumerate(known)}
        for each in scratch.values():
            each.mkdir()
        for reader in known:
            reader.read(scratch[reader.name], reader.seed)
        began, before_kib = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for number in range(asked.inputs):
            if time.monotonic() - began > asked.seconds:
                break
            reader = known[number % len(known)]
            seed = f"{asked.seed}-{number}"
            data = changed(reader, random.Random(seed))
            started = time.process_time()
            signal.alarm(10 * HANG_S)  # by the clock, where the machine is busy
            try:
                reader.read(scratch[reader.name], data)
                how = "read"
            except reader.refusals:
                how = "refused"
            except Hang:
                how = "hang"
            except BaseException as error:
                if isinstance(error, KeyboardInterrupt):
                    raise
                how = "traceback"
                said = f"{reader.name}: {type(error).__name__}: {str(error)[:120]!r}"
                found[said] += 1
                if found[said] == 1:
                    print(f"{said}, input {seed}", flush=True)
            signal.alarm(0)
            took = time.process_time() - started
            if took > HANG_S and how != "hang":
                print(f"{reader.name}: {took:.1f} s, input {seed}", flush=True)
                how = "hang"
            counts[reader.name, how] += 1
            spent[reader.name] += int(took * 1e6)
    peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print("| reader | inputs | read | refused | tracebacks | hangs | ms each |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for reader in known:
        numbers = [counts[reader.name, how] for how in ("read", "refused", "traceback", "hang")]
        each_ms = spent[reader.name] / 1e3 / max(1, sum(numbers))
        print(f"| {reader.name} | {sum(numbers):,} | {' | '.join(f'{n:,}' for n in numbers)} | {each_ms:.2f} |")
    total = sum(counts.values())
    print(f"\n{total:,} inputs in {time.monotonic() - began:.0f} s; memory {before_kib >> 10} MiB before, "
          f"{peak_kib >> 10} MiB at most")  # fmt: skip
    return int(any(how in ("traceback", "hang") for _, how in counts))


if __name__ == "__main__":
    sys.exit(main())
