"""Converts CloudFormation templates of SAM's translator and of CDK into one normal form.

Keeps every property of every resource. Removes differences without effect: the suffixes of logical ids in CDK, the spelling of
references, numbers as strings, the order of unordered lists, empty objects, and metadata of the tools.
"""

import re

# A logical id of CDK is the path of the construct and eight digits derived from it. All constructs are direct children of `Nobat`.
CDK_ID = re.compile(r"Nobat(\w+?)[0-9A-F]{8}")

REFERENCE = re.compile(r"\$\{([^}.]+)")


def normal(template):
    """Returns `{"Resources": …, "Outputs": …}` in normal form."""
    resources = {plain_id(key): resource(it) for key, it in template["Resources"].items()}
    outputs = {key: value(it) for key, it in template.get("Outputs", {}).items()}
    return {"Resources": resources, "Outputs": outputs}


def plain_id(logical_id):
    """Returns the id that the resource has in the template of SAM."""
    match = CDK_ID.fullmatch(logical_id)
    return match[1] if match else logical_id


def resource(it):
    """Returns a resource without metadata, code, default policies, and an order of creation that references imply."""
    kept = {key: value(it[key]) for key in ("Type", "Properties")}
    for policy in ("DeletionPolicy", "UpdateReplacePolicy"):
        if it.get(policy, "Delete") != "Delete":
            kept[policy] = it[policy]
    properties = kept["Properties"]
    properties.pop("Code", None)
    if properties.get("Tags") == [{"Key": "lambda:createdBy", "Value": "SAM"}]:
        del properties["Tags"]
    return kept


def value(node):
    """Returns a value in normal form. References become text, as in `Fn::Sub`."""
    if isinstance(node, dict):
        if len(node) == 1:
            [(key, argument)] = node.items()
            if key in REFERENCES:
                return REFERENCES[key](argument)
            if key.startswith("Fn::"):
                raise SystemExit(f"{key} is not supported")
        return {key: listed(key, value(it)) for key, it in node.items() if it != {}}
    if isinstance(node, list):
        return [value(it) for it in node]
    return str(node).lower() if isinstance(node, bool) else str(node)


def listed(key, it):
    """Sorts unordered lists, and turns single values into lists where both forms are valid."""
    if key in ("Action", "Resource"):
        return sorted(it) if isinstance(it, list) else [it]
    if key == "AttributeDefinitions":
        return sorted(it, key=lambda attribute: attribute["AttributeName"])
    return it


def join(argument):
    separator, parts = argument
    return separator.join(value(part) for part in parts)


REFERENCES = {
    "Ref": lambda name: "${" + plain_id(name) + "}",
    "Fn::GetAtt": lambda argument: "${" + plain_id(argument[0]) + "." + argument[1] + "}",
    "Fn::Sub": lambda text: REFERENCE.sub(lambda match: "${" + plain_id(match[1]), text),
    "Fn::Join": join,
}
