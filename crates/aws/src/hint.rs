//! Hints as messages.

use nobat_core::ports::Hint;
use nobat_core::task::TaskKey;
use nobat_core::types::id::TaskId;
use nobat_core::types::name::Tenant;
use serde::{Deserialize, Serialize};

/// Body of a message: tenant and id of a task, and the number of consecutive earlier hints of the task that
/// ended in the dead-letter queue.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    tenant: String,
    id: TaskId,
    #[serde(default, skip_serializing_if = "is_zero")]
    redrives: u32,
}

/// The message is not a hint.
#[derive(Debug, thiserror::Error)]
#[error("the message does not name a task")]
pub struct NoHint;

/// Returns the body of a message.
pub(crate) fn write(hint: &Hint) -> String {
    let body = Body { tenant: hint.name.tenant.to_string(), id: hint.name.id, redrives: hint.redrives };
    serde_json::to_string(&body).unwrap_or_else(|_| unreachable!("texts and numbers are always valid JSON"))
}

/// Reads the body of a message. Returns the key of the task, and the number of consecutive earlier hints of
/// the task that ended in the dead-letter queue.
pub fn read(body: &str) -> Result<(TaskKey, u32), NoHint> {
    let body: Body = serde_json::from_str(body).map_err(|_| NoHint)?;
    let tenant = Tenant::new(&body.tenant).map_err(|_| NoHint)?;
    Ok((TaskKey { tenant, id: body.id }, body.redrives))
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(count: &u32) -> bool {
    *count == 0
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn hint_reads_back_as_written() {
        let name =
            TaskKey { tenant: Tenant::default(), id: TaskId::from_key(&Tenant::default(), "", "k", 0) };
        for redrives in [0, 2] {
            let hint = Hint { redrives, ..Hint::new(name.clone(), Duration::ZERO) };
            assert_eq!(read(&write(&hint)).unwrap(), (name.clone(), redrives));
        }
    }

    #[test]
    fn body_without_a_task_is_refused() {
        let id = "task_01jd8rkz5m3q4v9x2y7w6t0abc";
        for body in [
            "",
            "{}",
            "null",
            "hello",
            r#"{"tenant":"","id":"task_01jd8rkz5m3q4v9x2y7w6t0abc"}"#,
            r#"{"tenant":"default","id":"1"}"#,
        ] {
            assert!(read(body).is_err(), "{body}");
        }
        assert!(read(&format!(r#"{{"tenant":"default","id":"{id}"}}"#)).is_ok());
        assert!(read(&format!(r#"{{"tenant":"default","id":"{id}","more":1}}"#)).is_err());
    }
}
