#!/usr/bin/env python3
"""Holds template.yaml against checkov (misconfigurations) and parliament (IAM policies), the engine image's Dockerfile
against checkov.

What either finds and is not listed here fails, and so does a listed exception that nothing needs any more.
"""

import json
import pathlib
import subprocess
import sys

import parliament
from stack import ROOT, TEMPLATE, VARIANTS, Stack, as_list, dump, translated

# checkov's checks that are not followed, each with the reason.
CHECKOV = {
    "CKV_AWS_18": "S3 access logs: who asked for a file is in the API's access log; data events of CloudTrail are the account's to switch on",
    "CKV_AWS_21": "versioning: no key is written twice with another content, and lifecycle rules would keep what they remove",
    "CKV_AWS_26": "SNS by AWS's own key: neither CloudWatch nor EventBridge can publish to such a topic; messages hold no secrets",
    "CKV_AWS_27": "SQS by KMS: the queues are encrypted by SQS's own keys (SqsManagedSseEnabled), which the check does not know",
    "CKV_AWS_65": "Container Insights: charged by the metric and hour; an operator who wants it switches it on for the account",
    "CKV_AWS_115": "concurrency by function: what it reserves is taken from the account's other functions; steps that are throttled are tried again",
    "CKV_AWS_116": "DLQ by function: only reconcile and submit are invoked asynchronously, and have one (EventInvokeConfig), as have their rules",
    "CKV_AWS_117": "functions in a VPC: they call AWS only, and would need endpoints or a NAT gateway, idle or not",
    "CKV_AWS_119": "DynamoDB by a customer's key: encrypted by AWS's key for DynamoDB; a key of one's own costs each month and request",
    "CKV_AWS_158": "logs by a customer's key: encrypted by CloudWatch's own; no log holds a secret",
    "CKV_AWS_173": "Lambda's environment by a customer's key: it holds names and numbers, no secrets",
}

# Those of the Dockerfile.
CHECKOV_IMAGE = {
    "CKV_DOCKER_2": "HEALTHCHECK: ECS does not look at an image's; a task that hangs is ended by its time limit",
    "CKV_DOCKER_7": "a tag: the images are named by arguments, with tags, and can be pinned by digest, which the check does not see",
}

# parliament's findings that are in order, (issue, role), each with the reason.
PARLIAMENT = {
    ("RESOURCE_MISMATCH", "ReconcileRole"): "it knows executions of Express machines only for states:DescribeExecution",
    ("RESOURCE_STAR", "ReconcileRole"): "ecs:ListTasks: its resource is a container instance, which Fargate has none of; the condition names the cluster",
}


def checkov(path, framework, excepted):
    command = [
        str(pathlib.Path(sys.executable).with_name("checkov")), "--file", str(path), "--framework", framework,
        "--skip-download", "--quiet", "--output", "json",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    report = json.loads(done.stdout)
    summary = report["summary"]
    if summary["parsing_errors"] or summary["passed"] < 100:
        yield f"checkov did not read {path}: {summary}"
    found = report["results"]["failed_checks"]
    for check in found:
        if check["check_id"] not in excepted:
            yield f"checkov {check['check_id']}: {check['check_name']} ({check['resource']})"
    for unused in excepted.keys() - {check["check_id"] for check in found}:
        yield f"checkov finds no {unused} any more: take it out of {pathlib.Path(__file__).name}"


def findings(template):
    """What parliament says of each policy in each variant, once."""
    seen = set()
    for parameters in VARIANTS.values():
        for role, name, document in Stack(parameters, template).policies():
            text = dump(document)
            if (role, text) in seen:
                continue
            seen.add((role, text))
            for finding in parliament.analyze_policy_string(text).findings:
                yield role, name, finding
    assert len(seen) >= 18, f"only {len(seen)} policies were looked at"


def policies(template):
    used = set()
    for role, name, finding in findings(template):
        key = (finding.issue, role)
        if key in PARLIAMENT:
            used.add(key)
            continue
        yield f"parliament {finding.issue} in {role}/{name}: {finding.detail} {finding.location}"
    for unused in PARLIAMENT.keys() - used:
        yield f"parliament finds no {unused} any more: take it out of {pathlib.Path(__file__).name}"


def wildcards(template):
    """Actions are named, and `*` as a resource is for actions that take none."""
    takes_no_resource = {
        "dynamodb:ListStreams", "ecr:GetAuthorizationToken", "ecs:DiscoverPollEndpoint", "logs:CreateLogDelivery",
        "logs:DeleteLogDelivery", "logs:DescribeLogGroups", "logs:DescribeResourcePolicies", "logs:GetLogDelivery",
        "logs:ListLogDeliveries", "logs:PutResourcePolicy", "logs:UpdateLogDelivery", "xray:GetSamplingRules",
        "xray:GetSamplingTargets", "xray:PutTelemetryRecords", "xray:PutTraceSegments",
    }
    # By its condition only tasks of the stack's cluster; a container instance, its resource, is not known to Fargate.
    by_condition = {"ecs:ListTasks"}
    for parameters in VARIANTS.values():
        for role, name, document in Stack(parameters, template).policies():
            for statement in document["Statement"]:
                if statement["Effect"] != "Allow":
                    continue
                actions = set(as_list(statement["Action"]))
                if any("*" in action for action in actions):
                    yield f"{role}/{name} allows {sorted(actions)}: name the actions"
                if "*" in as_list(statement["Resource"]):
                    broad = actions - takes_no_resource - (by_condition if "Condition" in statement else set())
                    if broad:
                        yield f"{role}/{name} allows {sorted(broad)} on *"


def main():
    template = translated()
    problems = sorted({
        *checkov(TEMPLATE, "cloudformation", CHECKOV),
        *checkov(ROOT / "infra/engine/Dockerfile", "dockerfile", CHECKOV_IMAGE),
        *policies(template), *wildcards(template),
    })
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
