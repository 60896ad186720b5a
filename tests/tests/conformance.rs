//! Conformance of every backend and of the model that stands in for AWS.

use std::sync::Arc;
use std::time::Duration;

use nobat_sqlite::Sqlite;
use nobat_tests::aws::emulator::Emulator;
use nobat_tests::aws::queues::Queues;
use nobat_tests::aws::table::Table;
use nobat_tests::conformance::{Hints, RETENTION, Removal, World};
use nobat_tests::scratch::Scratch;
use nobat_tests::time::Time;
use nobat_tests::{conformance_cases, model};

/// Makes a test of every case, in a module for each noun, with the function `make` of the enclosing module.
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

    async fn make(time: Arc<Time>) -> World {
        let sqlite = Sqlite::in_memory(RETENTION, time.clock()).unwrap();
        World {
            backend: sqlite.backend(),
            time,
            hints: Hints::InTheStore,
            removal: Removal::ByPruning,
            keep: None,
        }
    }

    conformance_cases!(tests);
}

mod sqlite_file {
    use super::*;

    async fn make(time: Arc<Time>) -> World {
        let scratch = Scratch::new().unwrap();
        let sqlite = Sqlite::open(&scratch.path().join("nobat.db"), RETENTION, time.clock()).unwrap();
        World {
            backend: sqlite.backend(),
            time,
            hints: Hints::InTheStore,
            removal: Removal::ByPruning,
            keep: Some(Box::new(scratch)),
        }
    }

    conformance_cases!(tests);
}

mod model_backend {
    use super::*;

    async fn make(time: Arc<Time>) -> World {
        World {
            backend: model::backend(&time, RETENTION),
            time,
            hints: Hints::Apart,
            removal: Removal::ByPruning,
            keep: None,
        }
    }

    conformance_cases!(tests);
}

mod aws {
    use super::*;

    /// Visibility timeout: hints of a dropped worker reappear after 10 seconds. No case may take longer to
    /// settle its hints.
    const VISIBILITY: Duration = Duration::from_secs(10);

    async fn make(time: Arc<Time>) -> World {
        let emulator = Emulator::shared();
        let (table, queues) =
            (Table::create(emulator.client()).await, Queues::create(emulator.client(), VISIBILITY).await);
        let settings = nobat_aws::Settings {
            table: table.name().to_owned(),
            queue_url: queues.hints().to_owned(),
            retention: RETENTION,
        };
        let backend = nobat_aws::connect_to_emulator(&settings, &emulator.url()).await;
        World { backend, time, hints: Hints::Apart, removal: Removal::ByItself, keep: None }
    }

    conformance_cases!(tests);
}
