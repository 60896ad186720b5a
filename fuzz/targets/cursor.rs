//! Cursors: a sealed cursor opens only for its own list.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nobat_core::ports::{ListQuery, Position};
use nobat_core::types::name::{Name, Tenant};

#[allow(dead_code, reason = "this target checks some lists only")]
#[path = "../../crates/api/src/http/cursor.rs"]
mod cursor;

use cursor::List;

const KEY: [u8; 32] = [7; 32];

fn list(queue: Option<Name>) -> List {
    List::tasks(&ListQuery { queue, ..ListQuery::all(Tenant::default(), 50) })
}

fuzz_target!(|text: &str| {
    let (here, there) = (list(None), list(Name::new("other").ok()));
    // A fuzzer may forge a valid cursor, since it sees the comparison. Then it must be the only form of that
    // position.
    if let Some(position) = cursor::open(&KEY, &here, text) {
        assert_eq!(cursor::seal(&KEY, &here, &position), text);
    }
    let position = Position(text.to_owned());
    let sealed = cursor::seal(&KEY, &here, &position);
    assert_eq!(cursor::open(&KEY, &here, &sealed), Some(position));
    assert_eq!(cursor::open(&KEY, &there, &sealed), None);
    assert_eq!(cursor::open(&KEY, &List::audit(&Tenant::default()), &sealed), None);
    assert_eq!(cursor::open(&[8; 32], &here, &sealed), None);
    assert_eq!(cursor::open(&KEY, &here, &sealed.to_uppercase()).is_some(), sealed.to_uppercase() == sealed);
    assert_eq!(cursor::open(&KEY, &here, &format!("{sealed}00")), None);
    assert_eq!(cursor::open(&KEY, &here, &sealed[2..]), None);
});
