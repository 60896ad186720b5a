//! nobat: post work over HTTP, get an id in milliseconds, have it done behind your back.
//!
//! This crate is the program, and the library for programs with kinds of their own: implement [`Handler`], and
//! give it to [`main`]. What comes out is `nobat` with one kind more.

mod backend;
mod backup;
mod client;
mod command;
mod exit;
mod handles;
mod keys;
mod serve;
mod show;
mod vault;
mod workshop;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub use backend::{Place, Settings};
pub use nobat_worker::context::TaskContext;
pub use nobat_worker::handler::{Failure, Handler, Handlers};
pub use serve::{Serve, serve};
pub use vault::Sealing;

/// An asynchronous task API: post work, get an id in milliseconds, have it done behind your back.
#[derive(Parser)]
#[command(name = "nobat", version, after_help = exit::HELP)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Accept tasks and run them (this is also what happens without a command)
    Serve(Serve),
    /// Submit a task
    Submit(command::Submit),
    /// Show a task
    Get(command::Get),
    /// Say why a task is not running
    Explain(command::Explain),
    /// List tasks, the newest first
    List(command::List),
    /// Wait until a task has ended
    Wait(command::Wait),
    /// Call a task off
    Cancel(command::Cancel),
    /// Run an ended task again
    Replay(command::Replay),
    /// Make, list, replace and revoke keys: of a server (--url), or of the file or the table itself
    Keys(keys::Keys),
    /// Copy the SQLite file, also while a nobat is running on it
    Backup(backup::Backup),
    /// Make a copy the SQLite file again
    Restore(backup::Restore),
}

/// The whole program: reads the command line and the `NOBAT_*` variables, and does what they say.
///
/// `handlers` are run besides `http` and `noop`.
pub fn main(handlers: Handlers) -> ExitCode {
    let cli = Cli::parse();
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
            Command::Backup(backup) => backup.run(),
            Command::Restore(restore) => restore.run(),
        }
    });
    // What still blocks a thread by now, such as a look-up of a name, is not worth waiting for.
    runtime.shutdown_background();
    done.unwrap_or_else(|error| exit::report(&error))
}
