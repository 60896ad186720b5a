"""Brings a CloudFormation template into one form, whether SAM's translator or CDK wrote it.

Every property of every resource is kept. What goes is how it was said: logical ids that CDK makes longer, the many ways to write a
reference, numbers as strings, the order of what has none, objects that say nothing, and what only the tools themselves care for.
"""

import re

# A logical id of CDK is the path of the construct and eight digits derived from it. All constructs are direct children of `Nobat`.
CDK_ID = re.compile(r"Nobat(\w+?)[0-9A-F]{8}")

REFERENCE = re.compile(r"\$\{([^}.]+)")


def normal(template):
    """Returns `{"Resources": …, "Outputs": …}` in which equal things are equal."""
    resources = {plain_id(key): resource(it) for key, it in template["Resources"].items()}
    outputs = {key: value(it) for key, it in template.get("Outputs", {}).items()}
    return {"Resources": resources, "Outputs": outputs}


def plain_id(logical_id):
    """Returns the id that the resource has in the template of SAM."""
    match = CDK_ID.fullmatch(logical_id)
    return match[1] if match else logical_id


def resource(it):
    """Leaves out what is not a setting: metadata, an order of creation that references imply, code, and policies that are the default."""
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
    """Normalises any value. References become text, as in `Fn::Sub`."""
    if isinstance(node, dict):
        if len(node) == 1:
            [(key, argument)] = node.items()
            if key in REFERENCES:
                return REFERENCES[key](argument)
            if key.startswith("Fn::"):
                raise SystemExit(f"{key} is not used here, and not understood")
        return {key: listed(key, value(it)) for key, it in node.items() if it != {}}
    if isinstance(node, list):
        return [value(it) for it in node]
    return str(node).lower() if isinstance(node, bool) else str(node)


def listed(key, it):
    """Sorts lists whose order means nothing, and makes lists of what may stand alone."""
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
