"""IAM: what ECS's calls for tasks are authorized against.

StopTask and DescribeTasks are calls about tasks, ListTasks about no resource, and all three carry the cluster as
`ecs:cluster`. <https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazonelasticcontainerservice.html>
(ministack: about the cluster, without the key.)
"""

import json

from ministack.core import iam_actions

extract_resource_arn, request_tag_context = iam_actions.extract_resource_arn, iam_actions.request_tag_context


def resource_arn(service, method, path, headers, body, query, region, account):
    if service == "ecs":
        action, fields = headers.get("x-amz-target", "").rpartition(".")[2], json.loads(body or b"{}")
        # Of several tasks, the first: they are all of one cluster.
        if task := fields.get("task") or next(iter(fields.get("tasks", [])), None):
            return task if task.startswith("arn:") else f"arn:aws:ecs:{region}:{account}:task/{fields.get('cluster')}/{task}"
        if action == "ListTasks":
            return "*"
    return extract_resource_arn(service, method, path, headers, body, query, region, account)


def context(service, action, body, query):
    found = request_tag_context(service, action, body, query)
    if service == "ecs" and (cluster := json.loads(body or b"{}").get("cluster")):
        found = {**found, "ecs:cluster": cluster}
    return found


iam_actions.extract_resource_arn, iam_actions.request_tag_context = resource_arn, context
