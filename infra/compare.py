"""Compares the resources that SAM and CDK deploy. Prints the differences. The exit code is 0 if there are none, otherwise 1.

    npm ci --prefix cdk
    python compare.py [template.yaml]

Needs the package aws-sam-translator, node, and `npm ci` in cdk/. Compares the stacks with the default parameters, with every parameter
changed, which finds parameters that have no effect, and with every MaxTaskTimeout, since other timeouts depend on it.
"""

import difflib
import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from expand import expand, parameters_of
from normal import normal

HERE = Path(__file__).resolve().parent
CDK = HERE / "cdk"
FUNCTIONS = ("api", "worker", "sweeper", "dead_letter")

# Every parameter of the template, with a value other than its default.
CHANGED = {
    "Architecture": "x86_64",
    "MaxTaskTimeout": "880",
    "MaxConcurrency": "5",
    "ReserveConcurrency": "false",
    "RetentionDays": "90",
    "ProtectTable": "true",
    "PrivateNetworks": "10.0.0.0/8,127.0.0.0/8",
    "AllowFrom": "203.0.113.0/24,2001:db8::/32",
    "ThrottleRate": "50",
    "ThrottleBurst": "60",
    "LogLevel": "debug",
    "LogRetentionDays": "365",
    "AlarmTopic": "arn:aws:sns:eu-central-1:123456789012:alarms",
}


def main(template):
    unchanged = [name for name, default in parameters_of(template).items() if CHANGED.get(name, default) == default]
    if unchanged:
        raise SystemExit(f"CHANGED does not change these parameters: {', '.join(unchanged)}")
    build_cdk()
    cases = {"by default": {}, "with every parameter changed": CHANGED}
    cases |= {f"with MaxTaskTimeout={it}": {"MaxTaskTimeout": it} for it in ("110", "290", "590")}
    with ThreadPoolExecutor() as pool:
        synthesized = list(pool.map(synthesize, cases.values()))
    differences = [
        line
        for (said, parameters), cdk in zip(cases.items(), synthesized, strict=True)
        for line in compare(said, expand(template, parameters), cdk)
    ]
    print("\n".join(differences), end="\n" if differences else "")
    return 1 if differences else 0


def compare(said, sam, cdk):
    """Returns the lines that differ, with their context."""
    return difflib.unified_diff(lines(sam), lines(cdk), f"SAM, {said}", f"CDK, {said}", n=2, lineterm="")


def lines(template):
    """Returns one line for each value, with its path in front, so that every differing line names its value."""
    return sorted(leaves(normal(template), ""))


def leaves(node, path):
    if isinstance(node, dict) and node:
        for key, it in node.items():
            yield from leaves(it, f"{path}/{key}")
    elif isinstance(node, list) and node:
        for place, it in enumerate(node):
            yield from leaves(it, f"{path}/{place}")
    else:
        yield f"{path}: {json.dumps(node, ensure_ascii=False)}"


def build_cdk():
    compiler = CDK / "node_modules" / ".bin" / "tsc"
    if not compiler.exists():
        raise SystemExit(f"{compiler.relative_to(HERE)} does not exist: run `npm ci` in cdk/")
    run([compiler], env=os.environ)


def synthesize(parameters):
    """Returns the template that the CDK app writes, with empty files as programs."""
    with tempfile.TemporaryDirectory() as scratch:
        for function in FUNCTIONS:
            program = Path(scratch, "code", function, "bootstrap")
            program.parent.mkdir(parents=True)
            program.touch()
        context = {name[0].lower() + name[1:]: value for name, value in parameters.items()}
        context["code"] = f"{scratch}/code"
        run(
            ["node", "dist/bin/app.js"],
            env=os.environ | {"CDK_OUTDIR": f"{scratch}/out", "CDK_CONTEXT_JSON": json.dumps(context)},
        )
        return json.loads(Path(scratch, "out", "nobat.template.json").read_text(encoding="utf-8"))


def run(command, env):
    done = subprocess.run(command, cwd=CDK, env=env, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, command))} failed:\n{done.stdout}{done.stderr}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else HERE / "template.yaml"))
