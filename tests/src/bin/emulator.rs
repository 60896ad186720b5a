//! `cargo run -p nobat-tests --bin emulator`: AWS on this machine, for as long as this runs.

use clap::{Parser, ValueEnum};
use nobat_tests::aws::emulator::{Emulator, Iam};

/// Runs an emulator of AWS and says what to put into the environment of programs that are to use it
#[derive(Parser)]
struct Cli {
    /// Whether the roles of functions mean anything
    #[arg(long, value_enum, default_value_t = Roles::Enforced)]
    roles: Roles,
}

#[derive(Clone, Copy, ValueEnum)]
enum Roles {
    /// A function may do what its role says
    Enforced,
    /// Everybody may do everything
    Ignored,
}

fn main() {
    let iam = match Cli::parse().roles {
        Roles::Enforced => Iam::Enforced,
        Roles::Ignored => Iam::Ignored,
    };
    let emulator = Emulator::start(iam);
    for (name, value) in emulator.variables() {
        println!("export {name}={value}");
    }
    // Until this process is ended, by whatever means: the emulator goes with it.
    loop {
        std::thread::park();
    }
}
