"""Prints the actions that each function may take on each resource, as JSON.

    python policies.py [template.yaml]

Fails if a role has a managed policy, or an action a wildcard, since a list of actions cannot show such permissions.
Needs the package aws-sam-translator.
"""

import json
import sys
from pathlib import Path

from expand import expand
from normal import normal


def policies(template):
    """Returns `{function: {resource: [action, …]}}`. Functions have the names of their programs."""
    resources = normal(template)["Resources"]
    programs = {
        name: template["Resources"][name]["Metadata"]["BuildProperties"]["Binary"]
        for name, it in resources.items()
        if it["Type"] == "AWS::Lambda::Function"
    }
    return {program: allowed(resources, name) for name, program in programs.items()}


def allowed(resources, function):
    role = resources[function]["Properties"]["Role"].removeprefix("${").removesuffix(".Arn}")
    properties = resources[role]["Properties"]
    if "ManagedPolicyArns" in properties:
        raise SystemExit(f"{role} has a managed policy; list its actions instead")
    actions = {}
    for policy in properties["Policies"]:
        for statement in policy["PolicyDocument"]["Statement"]:
            for target in statement["Resource"]:
                actions.setdefault(named(target) + restricted(statement), []).extend(checked(role, statement))
    return {target: sorted(them) for target, them in sorted(actions.items())}


def named(arn):
    """Returns `Table/index/recent` for `${Table.Arn}/index/recent`."""
    return arn.replace("${", "").replace(".Arn}", "")


def restricted(statement):
    """Returns the values of a condition, as in `Table where C#?*`."""
    values = [value for tests in statement.get("Condition", {}).values() for them in tests.values() for value in them]
    return f" where {', '.join(values)}" if values else ""


def checked(role, statement):
    if statement["Effect"] != "Allow" or any("*" in action for action in statement["Action"]):
        raise SystemExit(f"{role} has a statement that denies, or whose actions have a wildcard: {statement}")
    return statement["Action"]


if __name__ == "__main__":
    path = sys.argv[1] if len(sys.argv) > 1 else Path(__file__).with_name("template.yaml")
    print(json.dumps(policies(expand(path)), indent=2, sort_keys=True))
