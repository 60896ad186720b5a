//! Behavior that a table and a queue in the cloud are known to show, but need not show.

use std::fmt;
use std::time::Duration;

/// Behavior that only the cloud shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Habit {
    /// The queue delivers a hidden message a second time: another server had a copy.
    DeliversTwice,
    /// The queue delivers a message after its deletion: the server with the copy was unavailable then.
    DeliversDeleted,
    /// The queue counts a receive whose answer is lost.
    LosesReceived,
    /// The queue moves a message to the dead letters because it was received too often.
    GivesUp,
    /// A dead letter causes another hint.
    HintsDeadLetter,
    /// A task is ended after the third dead letter in a row.
    EndsAsPipeline,
    /// A function is killed while it works on several messages.
    KillsBatch,
    /// A function returns some messages of its batch, but not all.
    SplitsBatch,
    /// The sweep index shows an earlier state.
    ShowsOldSweepIndex,
    /// The index of all tasks does not show a task yet, or still shows a removed one.
    ShowsOldList,
    /// A write was made, its answer was lost, and the client repeats it.
    RepeatsWrite,
    /// A repeated write is refused and recognized as already made.
    KnowsWriteAgain,
    /// A repeated write finds that another write came in between.
    RepeatsTooLate,
    /// A call is throttled.
    Throttles,
    /// A retry succeeds after a throttled call.
    SucceedsAtRetry,
    /// An expired item is removed, at an unspecified time.
    RemovesExpired,
    /// An expired item is still there.
    KeepsExpired,
}

impl Habit {
    /// All habits.
    pub const ALL: [Self; 17] = [
        Self::DeliversTwice,
        Self::DeliversDeleted,
        Self::LosesReceived,
        Self::GivesUp,
        Self::HintsDeadLetter,
        Self::EndsAsPipeline,
        Self::KillsBatch,
        Self::SplitsBatch,
        Self::ShowsOldSweepIndex,
        Self::ShowsOldList,
        Self::RepeatsWrite,
        Self::KnowsWriteAgain,
        Self::RepeatsTooLate,
        Self::Throttles,
        Self::SucceedsAtRetry,
        Self::RemovesExpired,
        Self::KeepsExpired,
    ];

    /// Returns the plural noun for counts of this habit.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::DeliversTwice => "messages delivered twice",
            Self::DeliversDeleted => "messages delivered after they were deleted",
            Self::LosesReceived => "receives whose response was lost",
            Self::GivesUp => "dead letters",
            Self::HintsDeadLetter => "hints after a dead letter",
            Self::EndsAsPipeline => "tasks ended after three dead letters",
            Self::KillsBatch => "functions killed in mid-batch",
            Self::SplitsBatch => "batches returned in part",
            Self::ShowsOldSweepIndex => "stale reads of `sweep`",
            Self::ShowsOldList => "stale reads of `recent`",
            Self::RepeatsWrite => "writes repeated after a lost response",
            Self::KnowsWriteAgain => "repeated writes recognized",
            Self::RepeatsTooLate => "writes repeated too late",
            Self::Throttles => "calls throttled",
            Self::SucceedsAtRetry => "calls that succeeded at a retry",
            Self::RemovesExpired => "expired items removed",
            Self::KeepsExpired => "expired items that remained",
        }
    }
}

/// Decides which habits show, and counts them.
pub trait Habits: Send + Sync {
    /// Returns true if the habit shows now.
    fn shows(&self, habit: Habit) -> bool;

    /// Returns a duration of at most `most`.
    fn some_time(&self, most: Duration) -> Duration;

    /// Records that the habit has shown.
    fn note(&self, habit: Habit);
}

/// Cloud without habits: every call takes effect at once, and once.
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

/// Counts of each habit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shown([u64; Habit::ALL.len()]);

impl Shown {
    /// Counts a habit.
    pub fn note(&mut self, habit: Habit) {
        self.0[habit as usize] += 1;
    }

    /// Returns the count of a habit.
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
