//! `cargo run -p nobat-tests --bin emulator`: runs an emulator of AWS on this machine until this process
//! ends.

use clap::{Parser, ValueEnum};
use nobat_tests::aws::emulator::{Emulator, Iam};

/// Runs an emulator of AWS and prints the environment variables for programs that use it
#[derive(Parser)]
struct Cli {
    /// Enforcement of the functions' IAM roles
    #[arg(long, value_enum, default_value_t = Roles::Enforced)]
    roles: Roles,
}

#[derive(Clone, Copy, ValueEnum)]
enum Roles {
    /// A function may do what its role allows
    Enforced,
    /// Every caller may do everything
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
    // The emulator ends with this process, however the process ends.
    loop {
        std::thread::park();
    }
}
