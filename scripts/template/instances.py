"""Compute=ec2: what the launch template makes on an instance is what the engine task mounts, and as whom.

A step's container is started by the instance's daemon, which mounts what the engine names: so a folder has one path on the
instance and in the task, and its user is the one that the instance made it for.
"""

import re

from rust_source import ROOT, code


def problems(stack):
    task, = stack.of_type("AWS::ECS::TaskDefinition").values()
    container, = task["ContainerDefinitions"]
    launch, = stack.of_type("AWS::EC2::LaunchTemplate").values()
    made = launch["LaunchTemplateData"]["UserData"]
    hosts = {volume["Name"]: volume["Host"]["SourcePath"] for volume in task["Volumes"]}
    mounts = {mount["ContainerPath"]: hosts.get(mount["SourceVolume"]) for mount in container["MountPoints"]}
    for path, host in mounts.items():
        if host != path:
            yield f"the engine task has {host} of the instance as {path}: the daemon knows one path alone"
    variables = {item["Name"]: item["Value"] for item in container["Environment"]}
    work, socket = variables.get("STEPWES_WORK_DIR"), docker_socket()
    for what, path in [("the work folder", work), ("Docker's socket", socket)]:
        if path not in mounts:
            yield f"{what} {path} is not mounted from the instance"
    if variables["STEPWES_CONTAINER"] != "docker":
        yield "the engine is not told to use Docker"
    user, _, group = container["User"].partition(":")
    folder = re.search(r"install --directory --mode (\d+) --owner (\d+) --group (\d+) (\S+)", made)
    if not folder or folder.groups() != ("0700", user, group, work):
        yield f"the instance does not make {work} for {container['User']} alone"
    if not re.search(rf"groupmod --gid {group} docker\n", made) or f"chgrp docker {socket}\n" not in made:
        yield f"the instance does not let group {group} use {socket}"
    if not re.search(rf"(?m)^ECS_CLUSTER={stack._name('Cluster')}$", made):
        yield "instances take part in another cluster"
    if "Privileged" in container or "ECS_DISABLE_PRIVILEGED=true" not in made:
        yield "a container on an instance may be privileged"
    options = launch["LaunchTemplateData"]["MetadataOptions"]
    if options != {"HttpTokens": "required", "HttpPutResponseHopLimit": 1} or "ECS_AWSVPC_BLOCK_IMDS=true" not in made:
        yield "containers can reach the instance's role"
    yield from scaling(stack)


def docker_socket():
    """Where the engine looks for Docker's daemon."""
    return re.search(r'DOCKER_SOCKET: &str = "([^"]+)"', code(ROOT / "crates/engine/src/container.rs"))[1]


def scaling(stack):
    """To zero, in the subnets of the tasks, and never under a task."""
    group, = stack.of_type("AWS::AutoScaling::AutoScalingGroup").values()
    provider, = stack.of_type("AWS::ECS::CapacityProvider").values()
    scaled = provider["AutoScalingGroupProvider"]
    if group["MinSize"] != "0" or scaled["ManagedScaling"]["Status"] != "ENABLED":
        yield "instances stay when nobody needs them"
    # https://docs.aws.amazon.com/AmazonECS/latest/developerguide/managed-termination-protection.html
    if scaled["ManagedTerminationProtection"] == "ENABLED" and not group["NewInstancesProtectedFromScaleIn"]:
        yield "termination protection needs instances that are protected from scale-in"
    tags = {tag["Key"]: tag["PropagateAtLaunch"] for tag in group["Tags"]}
    if tags.get("AmazonECSManaged") is not True:
        yield "ECS cannot scale a group without the tag AmazonECSManaged"
    if ",".join(group["VPCZoneIdentifier"]) != stack.parameters["SubnetIds"]:
        yield "instances are in other subnets than their tasks"
