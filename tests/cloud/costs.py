"""What a run of one step and one output file costs on the deployed stack, without the engine's own time: counted calls,
units and times at list prices, the table of docs/deploy.md.

    PATH=$PWD/.venv-test/bin:$PATH .venv-test/bin/python tests/cloud/costs.py

Counts are exact; test_counts.py pins them. Times are this machine's, one of which is a guess at AWS's: a function of M MB
has M/1769 of a processor there (<https://docs.aws.amazon.com/lambda/latest/dg/configuration-memory.html>), so that what it
computes takes that much longer, while what it waits for does not.
"""

import math
import statistics
import sys
import tempfile

from stack import Stack

sys.path.append(str(__import__("pathlib").Path(__file__).parent.parent))

from conftest import Wes, until  # noqa: E402
from test_counts import HELLO, counted_run  # noqa: E402

RUNS = 10
# USD, us-east-1, <https://aws.amazon.com/lambda/pricing/> and so on.
GB_SECOND, WRITE, READ = 0.0000166667, 0.625e-6, 0.125e-6


def billed(invocation, memory):
    """GB-seconds of an invocation, its initialization included: as measured, and with AWS's share of a processor."""
    took, computed = invocation["ms"] + invocation["init_ms"], invocation["cpu_ms"]
    slower = max(took - computed, 0) + computed * max(1769 / memory, 1)
    return [math.ceil(ms) / 1000 * memory / 1024 for ms in (took, slower)]


def main():
    with Stack(tempfile.mkdtemp(prefix="stepwes-costs-")) as stack:
        wes = Wes(stack.url, stack=stack, credentials=stack.credentials())
        memory = {name: stack.configuration(f"{name}Function")["MemorySize"] for name in ("Submit", "Advance", "Report", "Collect")}
        runs = [counted_run(stack, wes) for _ in range(RUNS + 1)]
        for which, some in [("cold", runs[:1]), ("warm", runs[1:])]:
            each = [[billed(one, memory[one["function"]]) for one in run["invoked"] if one["function"] in memory] for run in some]
            measured, slower = (statistics.median(sum(one[way] for one in run) for run in each) for way in (0, 1))
            print(f"{which}: {measured:.4f} GB-seconds as measured, {slower:.4f} with AWS's share of a processor")
            for name in memory:
                ones = [one for run in some for one in run["invoked"] if one["function"] == name]
                print(f"  {name} ({memory[name]} MB): " + ", ".join(
                    f"{field} {statistics.median(one[field] for one in ones):.1f}" for field in ("ms", "init_ms", "cpu_ms")
                ))
        print({name: runs[-1][name] for name in ("entered", "calls", "s3", "units")})


if __name__ == "__main__":
    main()
