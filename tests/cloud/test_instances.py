"""The stack with Compute ec2: its task runs on an instance, and a step in the container that it names.

ministack has no instances: the task is placed as it is on Fargate, and of the group, its scaling and the instances
themselves there are only the records. What the instances make of the launch template is held against the task definition by
scripts/template/instances.py.
"""

import base64
import json
import os

import pytest
from conftest import Wes, built_stack, until

TOOL = b"""cwlVersion: v1.2
class: CommandLineTool
requirements: {DockerRequirement: {dockerPull: "debian:13"}}
inputs: {}
baseCommand: [echo, hello]
stdout: said
outputs: {said: stdout}
"""
# Docker's command line, as far as cwltool uses it: a container is the command itself, in no container.
DOCKER = """#!/usr/bin/env python3
import json, os, sys

with open(__file__ + ".jsonl", "a") as log:
    log.write(json.dumps(sys.argv[1:]) + "\\n")
if sys.argv[1] == "inspect":
    print("[{}]")
if sys.argv[1] == "run":
    arguments = sys.argv[sys.argv.index("debian:13") + 1:]
    os.execvp(arguments[0], arguments)
"""


@pytest.fixture(scope="module")
def on_instances(request, tmp_path_factory):
    programs = tmp_path_factory.mktemp("programs")
    (programs / "docker").write_text(DOCKER)
    (programs / "docker").chmod(0o755)
    stack = built_stack(
        request, tmp_path_factory.mktemp("ec2"), Compute="ec2", AssignPublicIp="DISABLED", MaxInstances="3", Monitoring="no",
    )
    stack.environment = {"PATH": f"{programs}:{stack.aws_environment()['PATH']}"}
    stack.docker = programs / "docker.jsonl"
    with stack:
        yield stack


def test_a_step_runs_in_its_container_on_an_instance_of_the_stack(on_instances):
    wes = Wes(on_instances.url, stack=on_instances, credentials=on_instances.credentials())
    run_id = wes.run("tool.cwl", [("tool.cwl", TOOL)])
    log = wes.complete(run_id)
    assert wes.requests_get(f"{wes.base}/runs/{run_id}/outputs/said") == b"hello\n", log
    arn = on_instances.item(run_id)["task_arn"]["S"]
    (task,) = on_instances.ecs("DescribeTasks", tasks=[arn])["tasks"]
    assert (task["launchType"], task["capacityProviderName"]) == ("EC2", on_instances.name("InstanceProvider"))
    called = [json.loads(line) for line in on_instances.docker.open()]
    (run,) = [arguments for arguments in called if arguments[0] == "run"]
    # The daemon mounts what the engine names, so all of it must be in the folder that both know.
    mounts = [argument.split("source=")[1].split(",")[0] for argument in run if argument.startswith("--mount=")]
    work = str(on_instances.folder / "containers/host/var/lib/stepwes")
    assert mounts and all(os.path.realpath(mount).startswith(work + os.sep) for mount in mounts), mounts
    until(lambda: os.listdir(work) == [], "nothing of the run is left on the instance")


def test_the_group_comes_and_goes_with_the_runs(on_instances):
    groups = on_instances.query("autoscaling", "DescribeAutoScalingGroups", version="2011-01-01")
    (group,) = groups.iterfind(".//{*}AutoScalingGroups/{*}member")
    assert [group.findtext(f"{{*}}{name}") for name in ("MinSize", "MaxSize", "DesiredCapacity")] == ["0", "3", "0"]
    assert group.findtext("{*}NewInstancesProtectedFromScaleIn") == "true"
    name = on_instances.name("InstanceProvider")
    (provider,) = on_instances.ecs("DescribeCapacityProviders", capacityProviders=[name])["capacityProviders"]
    scaled = provider["autoScalingGroupProvider"]
    assert scaled["managedScaling"]["status"] == scaled["managedTerminationProtection"] == "ENABLED"
    (cluster,) = on_instances.call(
        "ecs", "AmazonEC2ContainerServiceV20141113.DescribeClusters", clusters=[on_instances.outputs["ClusterName"]],
    )["clusters"]
    assert cluster["capacityProviders"] == [name]


def test_instances_take_part_in_the_stacks_own_cluster(on_instances):
    template = on_instances.name("InstanceTemplate")
    answer = on_instances.query("ec2", "DescribeLaunchTemplateVersions", version="2016-11-15", LaunchTemplateId=template)
    made = base64.b64decode(answer.findtext(".//{*}userData")).decode()
    assert made.startswith("#!/bin/bash\n") and f"\nECS_CLUSTER={on_instances.outputs['ClusterName']}\n" in made
