//! `cargo run -p nobat-tests --bin stack`: runs nobat on this machine as deployed to AWS, until this process
//! ends.

use clap::{Parser, ValueEnum};
use nobat_tests::aws::deployment::Source;
use nobat_tests::aws::stack::Stack;

/// Starts an emulator of AWS, builds nobat's functions, deploys them there with IAM enforced, and prints the
/// URL of the API
#[derive(Parser)]
struct Cli {
    /// Tool that deploys the stack
    #[arg(long, value_enum, default_value_t = By::Sam)]
    by: By,
}

#[derive(Clone, Copy, ValueEnum)]
enum By {
    /// infra/template.yaml, by the SAM CLI
    Sam,
    /// infra/cdk, by the CDK
    Cdk,
}

#[tokio::main]
async fn main() {
    let source = match Cli::parse().by {
        By::Sam => Source::Sam,
        By::Cdk => Source::Cdk,
    };
    eprintln!("building and deploying; the first time, this takes some minutes");
    let stack = Stack::of(source).await;
    for (name, value) in stack.variables() {
        println!("export {name}={value}");
    }
    println!("export NOBAT_TABLE={} NOBAT_QUEUE_URL={}", stack.table.name(), stack.queues.hints());
    println!("export NOBAT_URL={} NOBAT_KEY={}", stack.url(), stack.key());
    eprintln!("\nRun these lines in another terminal, and then for example:");
    eprintln!(
        "  curl -s \"$NOBAT_URL/v1/tasks\" -H \"authorization: Bearer $NOBAT_KEY\" -H 'content-type: application/json' -d '{{\"kind\": \"noop\"}}'"
    );
    eprintln!("  cargo run --release -- submit noop --wait");
    eprintln!("The emulator ends with this program.");
    std::future::pending::<()>().await;
}
