//! End-to-end tests from the user's view: the real program, and a real server for it to call.

mod e2e {
    mod answers;
    mod backup;
    mod batch;
    mod callback;
    mod callback_secret;
    mod cancel;
    mod client;
    mod command;
    #[cfg(target_os = "linux")]
    mod connections;
    mod delivery;
    #[cfg(target_os = "linux")]
    mod disk;
    mod document;
    mod endpoint;
    mod endpoint_test;
    mod events;
    mod explain;
    mod failure;
    mod file;
    mod gathering;
    mod greet;
    mod handles;
    mod idempotency;
    mod keys;
    mod list;
    mod log;
    mod noisy_tenant;
    mod partner;
    mod replay;
    mod requests;
    mod reservations;
    mod restart;
    mod schedule;
    mod schedules;
    mod signature;
    mod sources;
    mod submit;
    mod url;
    mod wait;
    mod waits;
}
