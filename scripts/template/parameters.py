#!/usr/bin/env python3
"""Shows of every parameter of template.yaml that what it may be is taken, and that what it may not be is refused before
anything is made, with a message that says why: bounds, allowed values, patterns, and the Rules between parameters.

    parameters.py          evaluates them as stack.py does
    parameters.py --json   prints the cases, for another evaluator (tests/cloud/test_parameters.py)
"""

import json
import re
import sys

from contract import REFUSED, TAKEN
from stack import GIVEN, NETWORK, Contradiction, Stack, translated

JWT = {"JwtIssuer": "https://id.example.org", "JwtAudience": "wes"}
WEBHOOK = {"WebhookUrl": "https://example.org/wes", "WebhookSecret": "s3cret"}
# What a value needs beside it.
BESIDE = {
    ("AuthMode", "jwt"): JWT,
    ("AuthMode", "none"): {"AllowAnonymous": "yes"},
    ("AllowAnonymous", "yes"): {"AuthMode": "none"},
    ("AssignPublicIp", "DISABLED"): NETWORK,
    ("Compute", "ec2"): NETWORK,
    ("Metrics", "none"): {"Monitoring": "no"},
    ("RunFiles", "remove"): {"RunDays": "400"},
    ("TaskMemory", "512"): {"TaskCpu": "256"},
    ("TaskMemory", "122880"): {"TaskCpu": "16384"},
    **{("TaskCpu", str(cpu)): {"TaskMemory": str(memory)} for cpu, memory in [
        (256, 512), (512, 1024), (1024, 2048), (2048, 4096), (4096, 8192), (8192, 16384), (16384, 32768),
    ]},
}
# Of the parameters with a pattern: what it takes (with what the value needs beside it), and what not.
PATTERNS = {
    "EngineImage": (
        [("public.ecr.aws/stepwes/engine@sha256:0123456789abcdef", {}), ("engine:1.0_a-b", {})], ["Engine", "-engine", "an engine:1", "e"],
    ),
    "Engines": ([("[]", {}), (' [{"name": "cwltool"}]\n', {})], ["", "{}", "cwltool", "[", "[] x"]),
    "MaxTaskMemory": ([("512", {}), ("3145728", {})], ["", "99", "12345678", "1024.5", "01024", "1 GiB"]),
    "InputBuckets": (
        [("abc", {}), ("lab.data,other-1", {})],
        ["ab", "Data", "data/", "data,", "a,b", "-ab", "s3://data", "data, other", "arn:aws:s3:::data"],
    ),
    "OutputBuckets": ([("", {}), ("lab.results,other-1", {})], ["ab", "Data", "data/", "a,b", "s3://data", "data, other"]),
    "DestBucketBase": (
        [("s3://lab-results", {"OutputBuckets": "lab-results"}), ("s3://lab-results/a_b=c.d", {"OutputBuckets": "lab-results"}), ("", {})],
        ["lab-results", "s3://", "s3://Lab", "s3://lab-results/", "s3://lab-results/*", "s3://lab-results/a b"],
    ),
    "TriggerBuckets": (
        [("", {}), ("lab.data,other-1", {})],
        ["ab", "Data", "data/", "data,", "a,b", "s3://data", "data, other", ",".join(["bucket"] * 17)],
    ),
    "UrlSchemes": ([("s3", {}), ("https, s3", {})], ["", "ftp", "s3,", "HTTP", "http s3"]),
    "DrsTokensSecret": (
        [("arn:aws-cn:secretsmanager:cn-north-1:111122223333:secret:a/b_c+d=e.f@g-AbCdEf", {}), ("", {})],
        ["drs", "arn:aws:secretsmanager:us-east-1:1:secret:x", "arn:aws:ssm:us-east-1:111122223333:parameter/x", " "],
    ),
    "AllowedHosts": (
        [("", {}), ("*.lab.example.org,data.example.org,10.1.0.0/16,fd00::1", {})],
        ["http://x", "a b", "a, b", "a,", "*", "*.", "a*.org", "10.0.0.0/", "10.0.0.0/1234"],
    ),
    "MaxInputMiB": ([("1", {}), ("99999999", {})], ["", "0", "100000000", "1.5", "01", "1 GiB"]),
    "JwtIssuer": ([("https://id.example.org/realms/x", JWT | {"AuthMode": "jwt"})], ["id.example.org", "https://", "http://id.example.org"]),
    "JwtAudience": ([("wes,other", JWT | {"AuthMode": "jwt"})], ["wes, other", ",", "wes,", " "]),
    "OwnerClaim": ([("custom:lab_id", {})], ["", "two words"]),
    "GroupsClaim": ([("cognito:groups", {})], ["", "two words"]),
    "AdminGroup": ([("admins", {}), ("", {})], ["two words", "a,b"]),
    "InstanceType": ([("c7gd.4xlarge", {}), ("u-6tb1.metal", {})], ["", "m6i", "M6I.xlarge", "m6i xlarge", "m6i.xlarge,m5.large"]),
    "VpcId": ([("vpc-01234567", NETWORK)], ["vpc", "vpc-0123", "vpc-0123456G", "default", " "]),
    "SubnetIds": (
        [("subnet-01234567,subnet-0123456789abcdef0", NETWORK), (",".join(["subnet-01234567"] * 16), NETWORK)],
        ["subnet-1", "subnet-01234567, subnet-89abcdef", ",".join(["subnet-01234567"] * 17)],
    ),
    "SecurityGroupId": ([("sg-01234567", NETWORK)], ["sg-1", "default", "sg-01234567,sg-89abcdef"]),
    "ReconcileSchedule": (
        [(f"rate({often})", {}) for often in ("1 minute", "2 minutes", "10 minutes", "59 minutes", "1 hour")],
        ["", "5 minutes", "rate(0 minutes)", "rate(1 minutes)", "rate(60 minutes)", "rate(2 hours)", "rate(1 day)", "cron(0 * * * ? *)"],
    ),
    "WebhookUrl": ([("https://example.org:8443/wes?a=b", WEBHOOK), ("", {})], ["example.org", "http://example.org", "https://", "https://a b"]),
    "WebhookHeader": ([("X-Api-Key", {})], ["", "X Api", "X_Api", "X:"]),
    "WebhookSecret": ([("a b", {}), ("~", {})], ["", " a", "a ", "\u00e9", "a\nb"]),
    "ServiceInfo": ([("{}", {}), ('{"name": "a"}\n', {})], ["", "[]", "name", '{"name": "a"'[:-1]]),
    "PublicUrl": ([("https://wes.example.org", {}), ("https://example.org/a", {}), ("", {})], ["wes.example.org", "http://wes.example.org", "https://wes.example.org/"]),
    "AlarmEmail": ([("ops+wes@example.org", {}), ("", {})], ["ops", "ops@", "@example.org", "a@b@c", "a b@c"]),
    "LogFilter": ([("warn", {}), ("stepwes_store=debug,warn", {})], ["", "WARN", "warn stepwes=info", "warn;"]),
}
# Patterns that stand for whole numbers from one to another.
RANGES = {
    "MaxTaskDisk": (30, 200), "RunTimeoutSeconds": (60, 864000), "IdempotencyDays": (1, 90), "MaxRuns": (0, 10000), "RunDays": (0, 36500), "ReconcileGraceSeconds": (60, 86400),
}
PATTERNS |= {
    name: ([(str(low), {}), (str(high), {})], ["", str(low - 1), str(high + 1), f"{low}.5", f"0{low}", " 70", "many"])
    for name, (low, high) in RANGES.items()
}
# <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/fargate-tasks-services.html#fargate-tasks-size>
FARGATE = {
    256: [512, 1024, 2048],
    512: range(1024, 4096 + 1, 1024),
    1024: range(2048, 8192 + 1, 1024),
    2048: range(4096, 16384 + 1, 1024),
    4096: range(8192, 30720 + 1, 1024),
    8192: range(16384, 61440 + 1, 4096),
    16384: range(32768, 122880 + 1, 8192),
}


def with_beside(name, value):
    return BESIDE.get((name, str(value)), {}) | {name: str(value)}


def cases(template):
    """(parameters, what the refusal names or None when they are taken), each once."""
    yield from REFUSED
    yield from ((given, None) for given in TAKEN)
    for name, declared in template["Parameters"].items():
        if declared["Type"] == "Number":
            yield {name: "many"}, name
        if "MinValue" in declared:
            for value, beyond in [(declared["MinValue"], -1), (declared["MaxValue"], 1)]:
                yield with_beside(name, value), None
                yield {name: str(value + beyond)}, name
        for value in declared.get("AllowedValues", []):
            yield with_beside(name, value), None
        if "AllowedValues" in declared:
            yield {name: "0" if declared["Type"] == "Number" else "perhaps"}, name
        if "AllowedPattern" in declared:
            taken, refused = PATTERNS.get(name, ([], []))
            for value, beside in taken:
                yield beside | {name: value}, None
            for value in refused:
                yield {name: value}, name
    for cpu, sizes in FARGATE.items():
        for memory in sorted({512, *range(1024, 122880 + 1, 1024), 2047, 4095, 8193}):
            given = {"TaskCpu": str(cpu), "TaskMemory": str(memory)}
            yield given, None if memory in sizes else f"On Fargate {cpu} CPU units"
            # The instance's own business.
            yield NETWORK | given | {"Compute": "ec2"}, None


def constrained(template):
    """Every parameter is held to something, and says to what."""
    for name, declared in template["Parameters"].items():
        if not declared.keys() & {"AllowedValues", "AllowedPattern", "MinValue"}:
            yield f"{name} may be anything: say what it may be"
        if "AllowedPattern" in declared and "ConstraintDescription" not in declared:
            yield f"{name} is refused by a pattern that nobody can read: give it a ConstraintDescription"
        if "AllowedPattern" in declared and name not in PATTERNS:
            yield f"no value of {name} is tried: name some in PATTERNS"
        if name in RANGES:
            low, high = RANGES[name]
            matches = re.compile(declared["AllowedPattern"]).fullmatch
            if wrong := [number for number in range(-1, high * 11) if bool(matches(str(number))) != (low <= number <= high)]:
                yield f"{name} is to be from {low} to {high}; its pattern is wrong for {wrong[:3]}"
        if ("MinValue" in declared) != ("MaxValue" in declared):
            yield f"{name} has one bound and not the other"


def outcome(template, given):
    """Why these parameters are refused; None when they are taken."""
    try:
        # Resources are none of this: with none there is nothing to resolve.
        Stack(given, template | {"Resources": {}})
    except Contradiction as refusal:
        return str(refusal)
    return None


def problems(template, refusal):
    """What the cases show to be wrong, where `refusal` tells why parameters are refused."""
    said = set()
    for given, named in cases(template):
        found = refusal(given)
        said.add(found)
        if found is None and named is not None:
            yield f"{given} is not refused"
        elif found is not None and named is None:
            yield f"{given} is refused: {found}"
        elif found is not None and named not in found:
            yield f"{given} is refused, but with: {found}"
    for name, rule in template["Rules"].items():
        for assertion in rule["Assertions"]:
            if not any(each and assertion["AssertDescription"] in each for each in said):
                yield f"no case breaks the rule {name}: {assertion['AssertDescription']}"


def main():
    template = translated()
    if "--json" in sys.argv:
        json.dump([[GIVEN | given, named] for given, named in cases(template)], sys.stdout)
        return 0
    found = [*constrained(template), *problems(template, lambda given: outcome(template, given))]
    for problem in found:
        print(f"error: {problem}", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
