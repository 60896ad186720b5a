"""Prints, as JSON, what each function may do to which resource.

    python policies.py [template.yaml]

A managed policy or a wildcard in an action ends it with 1: such a permission could not be read off a list.
Needs the package aws-sam-translator.
"""

import json
import sys
from pathlib import Path

from expand import expand
from normal import normal


def policies(template):
    """Returns `{function: {resource: [action, …]}}`, functions being named as their programs are."""
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
        raise SystemExit(f"{role} has a managed policy")
    actions = {}
    for policy in properties["Policies"]:
        for statement in policy["PolicyDocument"]["Statement"]:
            for target in statement["Resource"]:
                actions.setdefault(named(target) + restricted(statement), []).extend(checked(role, statement))
    return {target: sorted(them) for target, them in sorted(actions.items())}


def named(arn):
    """Writes `${Table.Arn}/index/recent` as `Table/index/recent`."""
    return arn.replace("${", "").replace(".Arn}", "")


def restricted(statement):
    """Writes what a condition asks for, as in `Table where C#?*`."""
    values = [value for tests in statement.get("Condition", {}).values() for them in tests.values() for value in them]
    return f" where {', '.join(values)}" if values else ""


def checked(role, statement):
    if statement["Effect"] != "Allow" or any("*" in action for action in statement["Action"]):
        raise SystemExit(f"{role} has a statement that is not a plain list of allowed actions: {statement}")
    return statement["Action"]


if __name__ == "__main__":
    path = sys.argv[1] if len(sys.argv) > 1 else Path(__file__).with_name("template.yaml")
    print(json.dumps(policies(expand(path)), indent=2, sort_keys=True))
