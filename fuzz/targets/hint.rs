//! Messages of the queue: a message that names a task reads back as written. Other messages are rejected.
#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use nobat_core::ports::Hint;

#[path = "../../crates/aws/src/hint.rs"]
mod hint;

fuzz_target!(|body: &str| {
    let Ok((name, redrives)) = hint::read(body) else { return };
    let written = hint::write(&Hint { redrives, ..Hint::new(name.clone(), Duration::ZERO) });
    assert_eq!(hint::read(&written).expect("the hint reads back"), (name, redrives));
});
