//! Every backend, and the model that stands in for those in the cloud, does what a backend must do.

use std::sync::Arc;

use nobat_sqlite::Sqlite;
use nobat_tests::conformance::{Hints, RETENTION, World};
use nobat_tests::scratch::Scratch;
use nobat_tests::time::Time;
use nobat_tests::{conformance_cases, model};

/// Makes a test of every case, in a module for each noun, around the function `make` of the module it stands in.
macro_rules! tests {
    ($($noun:ident: [$($case:ident),*])*) => {
        $(mod $noun {
            $(#[test]
            fn $case() {
                nobat_tests::conformance::check(super::make, nobat_tests::conformance::$noun::$case);
            })*
        })*
    };
}

mod sqlite_memory {
    use super::*;

    fn make(time: &Arc<Time>) -> World {
        let sqlite = Sqlite::in_memory(RETENTION, time.clock()).unwrap();
        World { backend: sqlite.backend(), time: time.clone(), hints: Hints::InTheStore, keep: None }
    }

    conformance_cases!(tests);
}

mod sqlite_file {
    use super::*;

    fn make(time: &Arc<Time>) -> World {
        let scratch = Scratch::new().unwrap();
        let sqlite = Sqlite::open(&scratch.path().join("nobat.db"), RETENTION, time.clock()).unwrap();
        World { backend: sqlite.backend(), time: time.clone(), hints: Hints::InTheStore, keep: Some(Box::new(scratch)) }
    }

    conformance_cases!(tests);
}

mod model_backend {
    use super::*;

    fn make(time: &Arc<Time>) -> World {
        World { backend: model::backend(time, RETENTION), time: time.clone(), hints: Hints::Apart, keep: None }
    }

    conformance_cases!(tests);
}
