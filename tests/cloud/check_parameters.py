"""Has ministack's CloudFormation say why each set of parameters is refused; null for one that it takes.

    .venv-cloud/bin/python tests/cloud/check_parameters.py < SETS > REFUSALS
"""

import json
import pathlib
import sys

from ministack.services.cloudformation import engine
from samtranslator.yaml_helper import yaml_parse

TEMPLATE = pathlib.Path(__file__).resolve().parents[2] / "template.yaml"


def refusal(template, given):
    try:
        # What a change set is made with, before anything else.
        parameters = engine._resolve_parameters(template, [{"Key": name, "Value": value} for name, value in given.items()])
        engine._evaluate_rules(template, parameters, {})
    except ValueError as error:
        return str(error)
    return None


if __name__ == "__main__":
    template = yaml_parse(TEMPLATE.read_text())
    json.dump([refusal(template, given) for given in json.load(sys.stdin)], sys.stdout)
