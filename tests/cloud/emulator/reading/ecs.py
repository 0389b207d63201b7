"""ECS: stopping takes as long as the container does, tasks have their role, and what cannot be had is said.

- StopTask: the containers get SIGTERM and have `stopTimeout` seconds; the task is STOPPED when they have ended, with
  their exit codes. <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_StopTask.html>
  (ministack: STOPPED at once with exit code 0, killed after five seconds.)
- An image that is not there ends a task with `CannotPullContainerError`.
  <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/stopped-task-error-codes.html>
- A container has its task role's credentials. (ministack: none that it would take itself under AUTH.)
- RunTask can be without capacity or refuse what it is given, and Spot capacity can be taken back: tests say so in the file that `FAULTS` names.
  <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/api_failures_messages.html>
"""

import contextvars
import hashlib
import json
import threading

from docker import errors
from ministack.core.responses import error_response_json, get_account_id, get_region, json_response
from ministack.services import ecs, sts

from reading.faults import fault

SPOT = "Your Spot Task was interrupted."

run_task = ecs._run_task


def run_task_or_fail(data):
    if failures := fault("run_task_failures"):
        return json_response({"tasks": [], "failures": failures})
    if error := fault("run_task_error"):
        return error_response_json(*error, 400)
    return run_task(data)


ecs._run_task = run_task_or_fail
run_container = ecs._run_docker_container


def run_container_or_say_why(client, definition, arguments, **more):
    try:
        if fault("image_is_missing"):
            raise errors.ImageNotFound(f"failed to resolve ref {definition['image']}: not found")
        # No platform: there is nothing to emulate.
        return run_container(client, definition, {**arguments, "platform": None}, **more)
    except errors.ImageNotFound as error:
        raise ecs._ImagePullError(f"pull image manifest has been retried 1 time(s): {error}") from error


ecs._run_docker_container = run_container_or_say_why


def stop_task(data):
    cluster = ecs._resolve_cluster_name(data.get("cluster", "default"))
    task = cluster and ecs._resolve_task(data.get("task", ""), cluster)
    with ecs.resource_lock("ecs-task", task["taskArn"] if task else ""):
        if task and task["lastStatus"] == "RUNNING" and task["desiredStatus"] == "STOPPED":
            return json_response({"task": ecs._sanitize(task)})
        if running := task and task["lastStatus"] == "RUNNING" and task["_docker_ids"]:
            task |= {"desiredStatus": "STOPPED", "stoppingAt": ecs._iso()}
    if not running:
        return ministacks_stop_task(data)
    end = contextvars.copy_context().run
    threading.Thread(target=end, args=(end_task, task, data.get("reason", "Task stopped by user")), daemon=True).start()
    return json_response({"task": ecs._sanitize(task)})


def end_task(task, reason):
    """Stops a task's containers, and tells of the task's end when they have ended."""
    definition = ecs._task_defs[ecs._resolve_td_key(task["taskDefinitionArn"])]
    containers = zip(task["containers"], definition["containerDefinitions"], list(task["_docker_ids"]))
    for shown, defined, identifier in containers:
        container = ecs._get_docker().containers.get(identifier)
        container.stop(timeout=defined.get("stopTimeout", 30))
        shown["exitCode"] = container.wait()["StatusCode"]
    with ecs.resource_lock("ecs-task", task["taskArn"]):
        # ministack ends only what is not ending already.
        task["desiredStatus"] = "RUNNING"
    ecs._mark_task_stopped(task["taskArn"], task, reason, "SpotInterruption" if reason == SPOT else "UserInitiated")
    ecs._cleanup_task_resources(task, ecs._get_docker())


ministacks_stop_task = ecs._stop_task
ecs._stop_task = ecs._ACTION_MAP["StopTask"] = stop_task
register_metadata = ecs._register_metadata


def register_metadata_and_role(task_arn, cluster_arn, definition, container, launch_type, env, *rest):
    token = register_metadata(task_arn, cluster_arn, definition, container, launch_type, env, *rest)
    for name, value in env.items():
        env[name] = value.replace("host.docker.internal", "127.0.0.1")
    del env["AWS_CONTAINER_CREDENTIALS_FULL_URI"], env["AWS_CONTAINER_AUTHORIZATION_TOKEN"]
    role, task = definition["taskRoleArn"].rsplit("/", 1)[-1], task_arn.rsplit("/", 1)[-1]
    digest = hashlib.sha256(f"{task_arn} {token}".encode()).hexdigest()
    key = {"SecretAccessKey": f"secret{digest}", "SessionToken": f"session{digest}"}
    access_key = f"ASIA{digest[:16].upper()}"
    arn = f"arn:aws:sts::{get_account_id()}:assumed-role/{role}/{task}"
    sts.register_session(access_key, {"Arn": arn, "UserId": f"{role}:{task}", **key})
    env |= {
        "AWS_ACCESS_KEY_ID": access_key, "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"],
        "AWS_SESSION_TOKEN": key["SessionToken"], "AWS_REGION": get_region(),
    }
    return token


ecs._register_metadata = register_metadata_and_role
