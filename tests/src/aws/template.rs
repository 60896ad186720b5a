//! `infra/template.yaml`.

use std::process::Command;
use std::sync::OnceLock;

use serde_json::Value;

use crate::harness::program::workspace;
use crate::tools::Tools;

/// Returns the properties of a resource as written. A `!Ref` appears as `{"Ref": …}`.
pub fn properties(resource: &str) -> &'static Value {
    let found = &template()["Resources"][resource]["Properties"];
    assert!(found.is_object(), "the template has no resource {resource}");
    found
}

/// Returns the template as written. A `!Ref` appears as `{"Ref": …}`.
pub fn template() -> &'static Value {
    static TEMPLATE: OnceLock<Value> = OnceLock::new();
    TEMPLATE.get_or_init(read)
}

fn read() -> Value {
    let mut command = Command::new(Tools::Emulator.programs().join("python"));
    command.arg(workspace().join("tests/aws/template.py")).arg(workspace().join("infra/template.yaml"));
    let output = command.output().expect("the installed Python can be started");
    assert!(
        output.status.success(),
        "the template cannot be read: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).expect("JSON")
}
