"""Prints the SAM template as plain CloudFormation, with parameters, mappings and conditions resolved.

    python expand.py template.yaml [Parameter=value ...]

Needs the package aws-sam-translator.
"""

import json
import logging
import os
import re
import sys
from pathlib import Path

# The translator requires a region. Nothing in this template depends on it.
os.environ.setdefault("AWS_DEFAULT_REGION", "us-east-1")

from samtranslator.translator.transform import transform  # noqa: E402
from samtranslator.yaml_helper import yaml_parse  # noqa: E402

# The translator also warns about its usage metrics, which are not collected here.
logging.getLogger("samtranslator").setLevel(logging.ERROR)

ABSENT = {"Ref": "AWS::NoValue"}


def parameters_of(path):
    """Returns the template's parameters with their defaults, as text."""
    template = yaml_parse(Path(path).read_text(encoding="utf-8"))
    return {name: str(it.get("Default")) for name, it in template.get("Parameters", {}).items()}


def expand(path, overrides=None):
    """Returns the template at `path` as CloudFormation. Parameters have the values in `overrides`, otherwise their defaults."""
    template = yaml_parse(Path(path).read_text(encoding="utf-8"))
    values = Values(template, overrides or {})
    for section in ("Parameters", "Mappings", "Conditions"):
        template.pop(section, None)
    template = values.resolve(template)
    # The translator takes no code from a directory. The location of code is not compared.
    template["Globals"]["Function"]["CodeUri"] = "s3://bucket/key"
    return transform(template, {}, NoPolicies(), passthrough_metadata=True)


class Values:
    """Resolves references of a template to its own parameters, mappings and conditions."""

    def __init__(self, template, overrides):
        self.parameters = {name: it.get("Default") for name, it in template.get("Parameters", {}).items()}
        unknown = overrides.keys() - self.parameters.keys()
        if unknown:
            raise SystemExit(f"no such parameter: {', '.join(sorted(unknown))}")
        self.parameters.update(overrides)
        self.mappings = template.get("Mappings", {})
        self.conditions = template.get("Conditions", {})

    def resolve(self, node):
        """Returns `node` with its references resolved. References to resources and pseudo parameters stay."""
        if isinstance(node, list):
            return [it for it in map(self.resolve, node) if it != ABSENT]
        if not isinstance(node, dict):
            return node
        if len(node) == 1:
            [(key, argument)] = node.items()
            if key in self.FUNCTIONS:
                return self.FUNCTIONS[key](self, argument)
        resolved = {key: self.resolve(value) for key, value in node.items()}
        return {key: value for key, value in resolved.items() if value != ABSENT}

    def ref(self, name):
        return self.parameters.get(name, {"Ref": name})

    def find_in_map(self, argument):
        mapping, key, second = self.resolve(argument)
        return self.mappings[mapping][str(key)][second]

    def choose(self, argument):
        condition, then, otherwise = argument
        return self.resolve(then if self.resolve(self.conditions[condition]) else otherwise)

    def equals(self, argument):
        left, right = self.resolve(argument)
        return str(left) == str(right)

    def negate(self, argument):
        return not self.resolve(argument)[0]

    def substitute(self, argument):
        if not isinstance(argument, str):
            raise SystemExit("Fn::Sub with its own variables is not supported")
        known = lambda match: str(self.parameters.get(match[1], match[0]))  # noqa: E731
        return {"Fn::Sub": re.sub(r"\$\{([^}]+)\}", known, argument)}

    FUNCTIONS = {
        "Ref": ref,
        "Fn::FindInMap": find_in_map,
        "Fn::If": choose,
        "Fn::Equals": equals,
        "Fn::Not": negate,
        "Fn::Sub": substitute,
    }


class NoPolicies:
    """Managed policies by name. The template uses none."""

    def load(self):
        return {}


if __name__ == "__main__":
    if len(sys.argv) < 2:
        raise SystemExit(__doc__)
    chosen = dict(argument.split("=", 1) for argument in sys.argv[2:])
    print(json.dumps(expand(sys.argv[1], chosen), indent=2, sort_keys=True))
