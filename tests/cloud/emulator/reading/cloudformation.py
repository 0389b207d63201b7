"""CloudFormation: the two resources of the template that ministack does not know, by calls of ECS's own API.
<https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-resource-ecs-capacityprovider.html>,
<https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-resource-ecs-clustercapacityproviderassociations.html>
"""

import json
import uuid

from ministack.services import ecs
from ministack.services.cloudformation.provisioners import _RESOURCE_HANDLERS
from ministack.services.stepfunctions import _pascal_to_camel


def called(operation, request):
    status, _, body = operation(request)
    if status >= 400:
        raise ValueError(json.loads(body)["message"])


def create_provider(logical_id, properties, stack_name):
    name = properties.get("Name") or f"{stack_name}-{logical_id}-{uuid.uuid4().hex[:12]}"
    called(ecs._create_capacity_provider, {"name": name, **_pascal_to_camel({**properties, "Name": name})})
    return name, {}


def delete_provider(physical_id, _properties):
    called(ecs._delete_capacity_provider, {"capacityProvider": physical_id})


def associate(_logical_id, properties, _stack_name):
    called(ecs._put_cluster_capacity_providers, _pascal_to_camel(properties))
    return properties["Cluster"], {}


def dissociate(_physical_id, properties):
    called(ecs._put_cluster_capacity_providers, {"cluster": properties["Cluster"]})


_RESOURCE_HANDLERS |= {
    "AWS::ECS::CapacityProvider": {"create": create_provider, "delete": delete_provider},
    "AWS::ECS::ClusterCapacityProviderAssociations": {"create": associate, "delete": dissociate},
}
