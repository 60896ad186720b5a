//! The message of the queue: what names a task is read back as it is written, and nothing else is read.
#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use nobat_core::ports::Hint;

#[path = "../../crates/aws/src/hint.rs"]
mod hint;

fuzz_target!(|body: &str| {
    let Ok((name, redrives)) = hint::read(body) else { return };
    let written = hint::write(&Hint { redrives, ..Hint::new(name.clone(), Duration::ZERO) });
    assert_eq!(hint::read(&written).expect("what was written"), (name, redrives));
});
