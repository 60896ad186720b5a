//! nobat: an asynchronous task API. Clients post tasks over HTTP and get an id in milliseconds. nobat then
//! runs the tasks.
//!
//! This crate is the program. It is also a library for programs with their own kinds: implement [`Handler`],
//! and pass it to [`main`]. The result is `nobat` with one more kind.

mod backend;
mod backup;
mod client;
mod command;
mod exit;
mod fields;
mod handler_runtime;
mod handles;
mod in_use;
mod keys;
mod render;
mod resource;
mod response;
mod serve;
mod submit;
mod vault;

use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

pub use backend::{BackendKind, Settings};
pub use nobat_worker::handler::Handler;
pub use nobat_worker::handler::context::TaskContext;
pub use nobat_worker::handler::failure::Failure;
pub use nobat_worker::handler::registry::Handlers;
pub use serve::{Serve, serve};
pub use vault::MasterKeyArgs;

/// Asynchronous task API: accepts tasks over HTTP and runs them, with retries, limits and reports
#[derive(Parser)]
#[command(name = "nobat", version, after_help = exit::HELP)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Run the server, which accepts tasks and runs them. This is the default command
    Serve(Serve),
    /// Submit a task
    Submit(Box<submit::Submit>),
    /// Show a task
    Get(command::Get),
    /// Show why a task is not running
    Explain(command::Explain),
    /// List tasks, newest first
    List(command::List),
    /// Wait until a task has ended
    Wait(command::Wait),
    /// Cancel a task
    Cancel(command::Cancel),
    /// Run an ended task again
    Replay(command::Replay),
    /// Create, list, rotate and revoke API keys of a server (--url), or of the file or the table itself
    Keys(keys::Keys),
    #[command(flatten)]
    Resource(resource::Call),
    /// Copy the SQLite file, also while a server runs on it
    ///
    /// A copy that cp makes while a server runs misses recent tasks, which are in the write-ahead log
    /// (FILE-wal). This command makes a complete and checked copy. The copy does not contain the master key
    /// (FILE.key).
    Backup(backup::Backup),
    /// Create the SQLite file from a copy that `nobat backup` made
    Restore(backup::Restore),
}

/// Returns the parser of the command line. It accepts negative numbers as values: in `--delay -1`, `-1` is a
/// value and not a flag.
fn command_line() -> clap::Command {
    fn allow(command: clap::Command) -> clap::Command {
        let command = command.mut_args(|argument| {
            let takes_values = argument.get_action().takes_values();
            argument.allow_negative_numbers(takes_values)
        });
        command.mut_subcommands(allow)
    }
    allow(Cli::command())
}

/// Runs the program: reads the command line and the `NOBAT_*` variables, and runs the command.
///
/// The server runs `handlers` in addition to `http` and `noop`.
pub fn main(handlers: Handlers) -> ExitCode {
    let cli = Cli::from_arg_matches(&command_line().get_matches()).unwrap_or_else(|error| error.exit());
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return exit::report(&error.into()),
    };
    let command = cli.command.unwrap_or_else(|| Command::Serve(Serve::parse_from(["serve"])));
    let done = runtime.block_on(async {
        match command {
            Command::Serve(settings) => settings.run(handlers).await.map(|()| ExitCode::SUCCESS),
            Command::Submit(submit) => submit.run().await,
            Command::Get(get) => get.run().await,
            Command::Explain(explain) => explain.run().await,
            Command::List(list) => list.run().await,
            Command::Wait(wait) => wait.run().await,
            Command::Cancel(cancel) => cancel.run().await,
            Command::Replay(replay) => replay.run().await,
            Command::Keys(keys) => keys.run().await,
            Command::Resource(call) => call.run().await,
            Command::Backup(backup) => backup.run(),
            Command::Restore(restore) => restore.run(),
        }
    });
    // The program does not wait for threads that are still blocked, for example by a DNS look-up.
    runtime.shutdown_background();
    done.unwrap_or_else(|error| exit::report(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_line_takes_negative_numbers_as_values() {
        command_line().debug_assert();
        for (arguments, flag) in [
            (vec!["list", "--limit", "-1"], "--limit"),
            (vec!["wait", "task_x", "--timeout", "-1"], "--timeout"),
            (vec!["serve", "--concurrency", "-1"], "--concurrency"),
            (vec!["serve", "--drain-timeout", "-1"], "--drain-timeout"),
            (vec!["serve", "--retention-days", "-1"], "--retention-days"),
        ] {
            let error =
                command_line().try_get_matches_from([&["nobat"], arguments.as_slice()].concat()).unwrap_err();
            assert_eq!(error.kind(), clap::error::ErrorKind::ValueValidation, "{error}");
            assert!(error.to_string().contains(flag), "{error}");
        }
        assert!(
            command_line().try_get_matches_from(["nobat", "submit", "noop", "--delay", "-1"]).is_ok(),
            "the server checks the bounds"
        );
    }
}
