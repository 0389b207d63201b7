"""What a run of one step and one output file takes on the deployed stack, without the engine's own time: the counts and the
GB-seconds in the cost table of docs/deploy.md.

    PATH=$PWD/.venv-test/bin:$PATH .venv-test/bin/python tests/cloud/costs.py

Counts are exact; test_counts.py pins them. Times are this machine's, and what AWS would bill is worked out from them: a
function of M MB has M/1769 of a processor (<https://docs.aws.amazon.com/lambda/latest/dg/configuration-memory.html>), so that
what it computes takes that much longer, while what it waits for does not; its initialization is billed too, and every
started millisecond counts (<https://aws.amazon.com/lambda/pricing/>).
"""

import math
import statistics
import tempfile

from stack import Stack
from conftest import Wes  # found by way of stack
from test_counts import counted_run

RUNS = 10
FUNCTIONS = ("Submit", "Advance", "Report", "Collect")


def gb_seconds(invocation, memory):
    """As measured, and with AWS's share of a processor."""
    took, computed = invocation["ms"] + invocation["init_ms"], invocation["cpu_ms"]
    stretched = max(took - computed, 0) + computed * max(1769 / memory, 1)
    return [math.ceil(ms) / 1000 * memory / 1024 for ms in (took, stretched)]


def main():
    with tempfile.TemporaryDirectory(prefix="stepwes-costs-") as folder, Stack(folder) as stack:
        wes = Wes(stack.url, stack=stack, credentials=stack.credentials())
        memory = {name: stack.configuration(f"{name}Function")["MemorySize"] for name in FUNCTIONS}
        runs = [counted_run(stack, wes) for _ in range(RUNS + 1)]
    for which, some in [("cold", runs[:1]), ("warm", runs[1:])]:
        sums = [[sum(one) for one in zip(*(gb_seconds(each, memory[each["function"]]) for each in run["invoked"]), strict=True)] for run in some]
        measured, stretched = (statistics.median(one[way] for one in sums) for way in (0, 1))
        print(f"{which}: {measured:.3f} GB-seconds a run as measured, {stretched:.3f} with AWS's share of a processor")
        for name in FUNCTIONS:
            invocations = [each for run in some for each in run["invoked"] if each["function"] == name]
            times = ", ".join(
                f"{field} {statistics.median(each[field] for each in invocations):.1f}" for field in ("ms", "init_ms", "cpu_ms")
            )
            print(f"  {name} ({memory[name]} MB): {times}")
    for name in ("entered", "calls", "s3", "units"):
        print(f"{name}: {runs[-1][name]}")


if __name__ == "__main__":
    main()
