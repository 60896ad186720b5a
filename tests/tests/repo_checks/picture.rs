use std::collections::BTreeSet;
use std::time::Duration;

use nobat_core::task::lifecycle::{Event, ReplayKey, Retry, transition};
use nobat_core::task::{CancelRequest, ErrorCode, Outcome, State, Status, Task, TaskError, TokenDigest};
use nobat_core::types::held_reason::HeldReason;
use nobat_core::types::jitter_sample::JitterSample;
use nobat_core::types::time::Timestamp;
use nobat_tests::sample;

use super::source::{section, text};

/// Arrow of the README's picture of a task's life: from, event, to.
type Edge = (String, String, String);

const PAUSE: Duration = Duration::from_secs(10);

/// Returns the lines of the picture.
fn picture() -> Vec<String> {
    let section = section(&text("README.md"), "## The picture");
    let blocks: Vec<&str> = section.split("```").skip(1).step_by(2).collect();
    let block =
        blocks.into_iter().find(|block| block.contains("scheduled")).expect("a picture of a task's life");
    block.lines().map(str::to_owned).collect()
}

/// Reads lines such as `from A, B:  label ─► C     label ─► D`.
fn sentences(picture: &[String]) -> Vec<Edge> {
    let mut edges = Vec::new();
    for line in picture {
        let Some((from, arrows)) = line.trim().strip_prefix("from ").and_then(|line| line.split_once(": "))
        else {
            continue;
        };
        for arrow in arrows.split("  ").filter_map(|part| part.split_once("─►")) {
            let to = arrow.1.trim().split(',').next().unwrap_or_default();
            edges.extend(
                from.split(", ").map(|from| (from.to_owned(), arrow.0.trim().to_owned(), to.to_owned())),
            );
        }
    }
    edges
}

/// Reads the line `A ─► B ────► C ────► D`. The line above it names the event of each arrow except the first,
/// in the same order.
fn main_line(picture: &[String]) -> Vec<Edge> {
    let place =
        picture.iter().position(|line| line.contains("submit ─►")).expect("a line that begins with submit");
    let labels = ["submit"].into_iter().chain(picture[place - 1].split_whitespace());
    let nodes: Vec<&str> = picture[place].split(['─', '►', ' ']).filter(|word| !word.is_empty()).collect();
    let edges: Vec<Edge> = nodes
        .windows(2)
        .zip(labels.clone())
        .map(|(pair, by)| (pair[0].to_owned(), by.to_owned(), pair[1].to_owned()))
        .collect();
    assert_eq!(
        (edges.len(), labels.count()),
        (nodes.len() - 1, nodes.len() - 1),
        "every arrow has a label above it"
    );
    edges
}

/// Arrows that go up and down. Their labels must be in the picture; only people check their ends.
const CROSSWISE: [(&str, &str, &str); 5] = [
    ("running", "error, none left, or permanent ─►", "failed"),
    ("running", "error, attempts left", "retrying"),
    ("running", "no handler for its kind", "held"),
    ("retrying", "retrying ─── due ──►", "queued"),
    ("held", "held", "queued"),
];

fn edges(picture: &[String]) -> Vec<Edge> {
    let crosswise = CROSSWISE.map(|(from, by, to)| (from.to_owned(), by.to_owned(), to.to_owned()));
    sentences(picture).into_iter().chain(main_line(picture)).chain(crosswise).collect()
}

fn now() -> Timestamp {
    sample::start()
}

fn apply(task: Task, event: Event, now: Timestamp) -> Task {
    transition(task, event, now).unwrap_or_else(|refused| panic!("{refused}")).task
}

fn running() -> Task {
    apply(sample::with_attempts(1, 2, now()), Event::Claim { until: now() + PAUSE }, now())
}

const DIGEST: TokenDigest = TokenDigest([7; 32]);

/// Task whose receiver has accepted the call.
fn waiting() -> Task {
    let called = apply(running(), Event::IssueToken { token: 1, digest: DIGEST }, now());
    apply(called, Event::Wait { token: 1, result: sample::json("null"), until: now() + PAUSE }, now())
}

fn failing(task: &Task, retry: Retry) -> Event {
    let error = TaskError::new(ErrorCode::HANDLER_ERROR, "it did not work");
    Event::Fail { token: task.token, error, retry, policy: None, spread: JitterSample::from_bits(0) }
}

fn ended(end: Outcome) -> Task {
    match end {
        Outcome::Succeeded => {
            apply(running(), Event::Succeed { token: 1, result: sample::json("null") }, now())
        }
        Outcome::Failed => apply(running(), failing(&running(), Retry::Never), now()),
        Outcome::Canceled => apply(sample::task(1, now()), Event::Cancel, now()),
        Outcome::Expired => {
            let mut task = sample::task(1, now() + PAUSE);
            task.options.expires_at = Some(now());
            apply(task, Event::Expire, now())
        }
    }
}

/// Returns a task with this status at `now`.
fn task_with_status(word: &str) -> Task {
    match Status::from_word(word).unwrap_or_else(|| panic!("{word} is not a status")) {
        Status::Scheduled => sample::task(1, now() + PAUSE),
        Status::Queued => sample::task(1, now()),
        Status::Held => apply(
            running(),
            Event::Hold {
                token: 1,
                reason: HeldReason::NoHandler,
                until: now() + PAUSE,
                reserved: None.into(),
            },
            now(),
        ),
        Status::Running => running(),
        // The sample task's pause between attempts is one second.
        Status::Retrying => apply(running(), failing(&running(), Retry::Backoff), now()),
        Status::Ended(end) => ended(end),
    }
}

/// Returns the status that a task with status `from` reaches by this event.
fn status_after(from: &str, by: &str) -> &'static str {
    if by == "submit" {
        return sample::task(1, now() + PAUSE).status(now()).as_str();
    }
    let task = if by.starts_with("completed") { waiting() } else { task_with_status(from) };
    assert_eq!(task.status(now()).as_str(), from);
    let (token, later) = (task.token, now() + PAUSE);
    let event = match by {
        "due" | "held" | "retrying ─── due ──►" => return task.status(later).as_str(),
        "claim" => Event::Claim { until: later },
        "ok" => Event::Succeed { token, result: sample::json("null") },
        "error, none left, or permanent ─►" => {
            let last = apply(task_with_status("retrying"), Event::Claim { until: later + PAUSE }, later);
            let last = apply(last.clone(), failing(&last, Retry::Backoff), later);
            assert_eq!(last.status(later), Status::Ended(Outcome::Failed), "no attempt is left");
            failing(&task, Retry::Never)
        }
        "error, attempts left" => failing(&task, Retry::Backoff),
        "no handler for its kind" => {
            Event::Hold { token, reason: HeldReason::NoHandler, until: later, reserved: None.into() }
        }
        "accepted, outcome follows" => return waiting().status(now()).as_str(),
        "completed" => Event::CompleteByToken { digest: DIGEST, result: sample::json("null") },
        "completed with an error" => {
            let error = TaskError::new(ErrorCode::HANDLER_ERROR, "it did not work");
            let (policy, spread) = (None, JitterSample::from_bits(0));
            let failed = |retry| Event::FailByToken {
                digest: DIGEST,
                error: error.clone(),
                retry,
                policy: policy.clone(),
                spread,
            };
            assert_eq!(apply(task.clone(), failed(Retry::Backoff), now()).status(now()), Status::Retrying);
            failed(Retry::Never)
        }
        "hints came to nothing" => Event::DispatchFailed,
        "cancel" => Event::Cancel,
        "deadline passed" => {
            let mut task = task;
            task.options.expires_at = Some(now());
            return apply(task, Event::Expire, now()).status(now()).as_str();
        }
        "replay" => Event::Replay { key: ReplayKey::Same, generation: None },
        other => panic!("the picture shows the unknown event {other}"),
    };
    apply(task, event, now()).status(now()).as_str()
}

#[test]
fn readme_picture_arrows_match_the_code() {
    let picture = picture();
    for (from, by, to) in edges(&picture) {
        assert_eq!(status_after(&from, &by), to, "{from}, {by}");
    }
}

#[test]
fn readme_picture_shows_every_status_and_event() {
    let picture = picture();
    let reached: BTreeSet<String> = edges(&picture).into_iter().map(|(_, _, to)| to).collect();
    let all: BTreeSet<String> = Status::ALL.iter().map(|status| status.as_str().to_owned()).collect();
    assert_eq!(reached, all);
    for (_, by, _) in CROSSWISE {
        assert!(picture.iter().any(|line| line.contains(by)), "the picture does not show {by}");
    }
    let named: Vec<_> = sentences(&picture).into_iter().map(|(_, by, _)| by).collect();
    for by in [
        "cancel",
        "deadline passed",
        "hints came to nothing",
        "replay",
        "accepted, outcome follows",
        "completed",
        "completed with an error",
    ] {
        assert!(named.iter().any(|named| named == by), "the picture does not show {by}");
    }
}

#[test]
fn canceled_running_task_ends_canceled_or_with_its_result() {
    assert!(picture().iter().any(|line| {
        line.contains("from running:  cancel asks the handler to stop; it ends canceled, or as it ends")
    }));
    let asked = || apply(running(), Event::Cancel, now());
    assert!(matches!(asked().state, State::Running(lease) if lease.cancel == CancelRequest::Requested));
    let ends = [
        (Event::Stop { token: 1 }, Outcome::Canceled),
        (failing(&running(), Retry::Backoff), Outcome::Canceled),
        (Event::Succeed { token: 1, result: sample::json("null") }, Outcome::Succeeded),
    ];
    for (event, end) in ends {
        assert_eq!(apply(asked(), event, now()).status(now()), Status::Ended(end));
    }
}
