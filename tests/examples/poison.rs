//! nobat with kinds that do the worst to their process that safe code can.

use std::hint::black_box;
use std::time::Duration;

use nobat::{Failure, Handler, Handlers, TaskContext};

/// Aborts the process.
struct Abort;

/// Calls itself until the stack is full, which ends the process.
struct Overflow;

/// Allocates memory until none is left, which ends the process.
struct Allocate;

/// Blocks its thread for ever and uses a processor.
struct Spin;

/// Blocks its thread for ever by sleeping.
struct Block;

/// Panics, which ends only the attempt.
struct Panic;

/// Size of each allocation, in bytes.
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

#[expect(unconditional_recursion, reason = "the recursion overflows the stack on purpose")]
fn deeper(depth: u64) -> u64 {
    // The frame is not empty and the call is not in tail position, so that no compiler turns it into a loop.
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
