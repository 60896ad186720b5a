//! The `nobat` program, with the built-in kinds.

fn main() -> std::process::ExitCode {
    nobat::main(nobat::Handlers::new())
}
