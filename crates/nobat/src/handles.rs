//! File handles of the process: their limit, and the share of it that client connections may use.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Maximum number of client connections, even if there are more handles.
const MAX_CONNECTIONS: u64 = 10_000;
/// Number of file handles reserved for files, listeners and the runtime.
const FILES: u64 = 64;
/// Number of file handles reserved for each running task: for its connection, an idle connection for the next
/// call, and two DNS look-ups.
const HANDLES_PER_CALL: u64 = 4;

/// Raises the soft limit of open files to the hard limit. Returns the limit in effect, `u64::MAX` if there is
/// none.
pub(crate) fn raise_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let unlimited = |limit: Option<u64>| limit.unwrap_or(u64::MAX);
    if limit.current != limit.maximum
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })
    {
        tracing::warn!(%error, limit = unlimited(limit.current), "the limit of open files cannot be raised; the current limit stays");
    }
    unlimited(getrlimit(Resource::Nofile).current)
}

/// Returns the maximum number of client connections for a limit of open files and a number of tasks that run
/// at a time.
///
/// Reserves handles for the tasks' calls and for files, but at most half of all, so that clients can always
/// connect.
pub(crate) fn connections(limit: u64, concurrency: usize) -> usize {
    let calls = u64::try_from(concurrency).unwrap_or(u64::MAX).saturating_mul(HANDLES_PER_CALL);
    let kept = calls.saturating_add(FILES).min(limit / 2);
    usize::try_from((limit - kept).clamp(1, MAX_CONNECTIONS)).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_handles_for_calls() {
        for (limit, concurrency, expected) in [
            (2_048, 128, 2_048 - 64 - 4 * 128),
            (1_024, 128, 512),
            (1_024, 0, 1_024 - 64),
            (1_024, 1_000, 512),
            (256, 128, 128),
            (20_000, 128, 10_000),
            (u64::MAX, 128, 10_000),
            (u64::MAX, usize::MAX, 10_000),
            (0, 128, 1),
        ] {
            assert_eq!(connections(limit, concurrency), expected, "{limit} handles, {concurrency} tasks");
        }
    }

    #[test]
    fn raised_limit_is_the_hard_limit() {
        let limit = raise_limit();
        assert_eq!(limit, getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX));
    }
}
