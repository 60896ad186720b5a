//! The `nobat` program, with the kinds that everybody has.

fn main() -> std::process::ExitCode {
    nobat::main(nobat::Handlers::new())
}
