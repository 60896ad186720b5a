//! nobat with kinds that do to their process the worst that safe code can do.

use std::hint::black_box;
use std::time::Duration;

use nobat::{Failure, Handler, Handlers, TaskContext};

/// Ends the process.
struct Abort;

/// Calls itself until the stack is full, which ends the process.
struct Overflow;

/// Takes memory until there is none left, which ends the process.
struct Allocate;

/// Keeps its thread and a processor for ever.
struct Spin;

/// Keeps its thread for ever, asleep.
struct Block;

/// Panics, which ends nothing but the attempt.
struct Panic;

/// How much memory is taken at a time, in bytes.
const PIECE: usize = 16 * 1024 * 1024;

impl Handler for Abort {
    const KIND: &'static str = "abort";
    type Input = ();
    type Output = ();

    async fn run(&self, (): (), _context: &TaskContext) -> Result<(), Failure> {
        std::process::abort()
    }
}

impl Handler for Overflow {
    const KIND: &'static str = "overflow";
    type Input = ();
    type Output = u64;

    async fn run(&self, (): (), _context: &TaskContext) -> Result<u64, Failure> {
        Ok(deeper(0))
    }
}

#[expect(unconditional_recursion, reason = "this is what it is for")]
fn deeper(depth: u64) -> u64 {
    // Neither is the frame empty nor the call the last thing that is done, so that no compiler makes a loop of it.
    let frame = black_box([depth; 64]);
    deeper(depth + 1) + frame[63]
}

impl Handler for Allocate {
    const KIND: &'static str = "allocate";
    type Input = ();
    type Output = ();

    async fn run(&self, (): (), _context: &TaskContext) -> Result<(), Failure> {
        let mut pieces = Vec::new();
        loop {
            pieces.push(black_box(vec![1_u8; PIECE]));
        }
    }
}

impl Handler for Spin {
    const KIND: &'static str = "spin";
    type Input = ();
    type Output = ();

    async fn run(&self, (): (), _context: &TaskContext) -> Result<(), Failure> {
        loop {
            std::hint::spin_loop();
        }
    }
}

impl Handler for Block {
    const KIND: &'static str = "block";
    type Input = ();
    type Output = ();

    async fn run(&self, (): (), _context: &TaskContext) -> Result<(), Failure> {
        loop {
            std::thread::sleep(Duration::from_secs(1));
        }
    }
}

impl Handler for Panic {
    const KIND: &'static str = "panic";
    type Input = ();
    type Output = ();

    async fn run(&self, (): (), _context: &TaskContext) -> Result<(), Failure> {
        panic!("this attempt was told to panic")
    }
}

fn main() -> std::process::ExitCode {
    nobat::main(Handlers::new().with(Abort).with(Overflow).with(Allocate).with(Spin).with(Block).with(Panic))
}
