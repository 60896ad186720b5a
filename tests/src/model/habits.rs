//! What a table and a queue in the cloud are known to do, and need not do.

use std::fmt;
use std::time::Duration;

/// Something that is seen in the cloud and nowhere else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Habit {
    /// A message is delivered a second time though it is hidden: another server had a copy.
    DeliversTwice,
    /// A message is delivered after it was deleted: the server with the copy was away just then.
    DeliversDeleted,
    /// A receive counts, and its answer arrives nowhere.
    LosesReceived,
    /// A message was received so often that it is moved to the dead letters.
    GivesUp,
    /// A dead letter makes for another hint.
    HintsDeadLetter,
    /// A task is ended after the third dead letter in a row.
    EndsAsPipeline,
    /// A function is killed while it works on several messages.
    KillsBatch,
    /// A function gives part of its messages back, and not all.
    SplitsBatch,
    /// The index of what needs attention shows what was so, and not what is.
    ShowsOldAttention,
    /// The index of all tasks does not show one yet, or still shows one that is gone.
    ShowsOldList,
    /// A write was made, its answer lost, and it is asked for again.
    RepeatsWrite,
    /// Such a repetition is refused, and known for what it is.
    KnowsWriteAgain,
    /// Such a repetition finds that somebody has written since.
    RepeatsTooLate,
    /// A call is turned away: there are too many.
    Throttles,
    /// Another call gets what the call before it was refused.
    SucceedsAtRetry,
    /// What has expired is removed, some time or other.
    RemovesExpired,
    /// What has expired is still there.
    KeepsExpired,
}

impl Habit {
    /// All of them.
    pub const ALL: [Self; 17] = [
        Self::DeliversTwice,
        Self::DeliversDeleted,
        Self::LosesReceived,
        Self::GivesUp,
        Self::HintsDeadLetter,
        Self::EndsAsPipeline,
        Self::KillsBatch,
        Self::SplitsBatch,
        Self::ShowsOldAttention,
        Self::ShowsOldList,
        Self::RepeatsWrite,
        Self::KnowsWriteAgain,
        Self::RepeatsTooLate,
        Self::Throttles,
        Self::SucceedsAtRetry,
        Self::RemovesExpired,
        Self::KeepsExpired,
    ];

    /// What was counted, in the plural.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::DeliversTwice => "messages delivered twice",
            Self::DeliversDeleted => "messages delivered after they were deleted",
            Self::LosesReceived => "receives that nobody got",
            Self::GivesUp => "dead letters",
            Self::HintsDeadLetter => "hints after a dead letter",
            Self::EndsAsPipeline => "tasks ended after three dead letters",
            Self::KillsBatch => "functions killed in mid-batch",
            Self::SplitsBatch => "batches given back in part",
            Self::ShowsOldAttention => "stale reads of `attention`",
            Self::ShowsOldList => "stale reads of `recent`",
            Self::RepeatsWrite => "writes repeated after a lost answer",
            Self::KnowsWriteAgain => "writes known again",
            Self::RepeatsTooLate => "writes repeated too late",
            Self::Throttles => "calls throttled",
            Self::SucceedsAtRetry => "calls that a retry saved",
            Self::RemovesExpired => "expired items removed",
            Self::KeepsExpired => "expired items still there",
        }
    }
}

/// Decides which habits show, and is told of it when one did.
pub trait Habits: Send + Sync {
    /// Whether it shows now.
    fn shows(&self, habit: Habit) -> bool;

    /// Some time, of at most this length.
    fn some_time(&self, most: Duration) -> Duration;

    /// It has shown.
    fn note(&self, habit: Habit);
}

/// A cloud without habits: it does at once what it is asked to do, once.
pub struct Tame;

impl Habits for Tame {
    fn shows(&self, _habit: Habit) -> bool {
        false
    }

    fn some_time(&self, _most: Duration) -> Duration {
        Duration::ZERO
    }

    fn note(&self, _habit: Habit) {}
}

/// How often each habit has shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shown([u64; Habit::ALL.len()]);

impl Shown {
    /// It has shown once more.
    pub fn note(&mut self, habit: Habit) {
        self.0[habit as usize] += 1;
    }

    /// How often it has.
    pub fn times(&self, habit: Habit) -> u64 {
        self.0[habit as usize]
    }
}

impl std::ops::AddAssign for Shown {
    fn add_assign(&mut self, other: Self) {
        for (sum, more) in self.0.iter_mut().zip(other.0) {
            *sum += more;
        }
    }
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for habit in Habit::ALL.into_iter().filter(|habit| self.times(*habit) > 0) {
            write!(f, "\n  {:>9} {}", self.times(habit), habit.as_str())?;
        }
        Ok(())
    }
}
