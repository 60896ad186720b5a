//! Assignment of due tasks to workers, with an equal share for each tenant.

use std::time::Duration;

use nobat_core::ports::CommitResult;
use nobat_core::task::lifecycle::{Event, overdue, transition};
use nobat_core::task::{State, Task};
use nobat_core::types::intervals::LEASE;
use nobat_core::types::jitter_sample::JitterSample;
use nobat_core::types::name::Tenant;
use nobat_core::types::time::Timestamp;
use rusqlite::params;

use crate::Error;
use crate::row::COLUMNS;
use crate::task_queries::{select_readable, to_sql};
use crate::tenant_scheduler::TenantScheduler;

use super::Database;

/// Delay before a task whose row cannot be read is tried again.
const UNREADABLE_PAUSE: Duration = Duration::from_hours(1);

/// Maximum number of rounds in which one transaction gives free worker slots to tenants.
const MAX_ROUNDS: usize = 3;

/// Selects every tenant with waiting tasks, and the earliest `wake_at` of its tasks. Searches the index once
/// per tenant instead of reading every task.
const WAITING_TENANTS: &str = "
WITH RECURSIVE waiting (tenant) AS (
    SELECT (SELECT tenant FROM tasks INDEXED BY tasks_waiting WHERE status < 3 ORDER BY tenant LIMIT 1)
    UNION ALL
    SELECT (SELECT tenant FROM tasks INDEXED BY tasks_waiting WHERE status < 3 AND tenant > waiting.tenant ORDER BY tenant LIMIT 1)
    FROM waiting WHERE waiting.tenant IS NOT NULL
)
SELECT tenant, (SELECT min(wake_at) FROM tasks INDEXED BY tasks_waiting WHERE status < 3 AND tasks.tenant = waiting.tenant)
FROM waiting WHERE tenant IS NOT NULL
";

impl Database {
    /// Claims due tasks for waiting workers. Each tenant with due tasks gets an equal share of the free
    /// worker slots, up to its [`crate::worker_shares::WorkerShares::allowance`].
    pub(crate) fn dispatch(&mut self, now: Timestamp) -> Result<(), Error> {
        self.make_sure()?;
        let wanted = self.dispatch.wanted();
        self.shares.note_offer(wanted.saturating_sub(self.handed.len()));
        self.withheld.clear();
        // Slots that some tenants do not use go to the other tenants in the next round. Slots left after the
        // last round wait for the next transaction.
        for _ in 0..MAX_ROUNDS {
            let free = wanted.saturating_sub(self.handed.len());
            let due = if free == 0 { Vec::new() } else { self.scheduler.due(now) };
            let (due, withheld) =
                due.into_iter().partition::<Vec<_>, _>(|tenant| self.shares.allowance(tenant) > 0);
            self.withheld.extend(withheld);
            let share = (free / due.len().max(1)).max(1);
            for tenant in due {
                // The same transaction may have claimed the callback of an expired task, which takes a slot.
                let free = wanted.saturating_sub(self.handed.len());
                if free == 0 {
                    break;
                }
                self.dispatch_of(&tenant, share.min(free).min(self.shares.allowance(&tenant)), now)?;
                self.scheduler.serve(tenant);
            }
        }
        Ok(())
    }

    /// Keeps a claimed task for a worker, which gets it after the COMMIT.
    pub(super) fn hand(&mut self, task: Task) {
        self.shares.start(&task);
        self.handed.push(task);
    }

    /// Records tenants that have tasks in the file. The first and the last tenant by name are enough, because
    /// [`crate::worker_shares`] only needs to know if there are several tenants.
    pub(super) fn note_tenants(&mut self) -> Result<(), Error> {
        for sql in ["SELECT min(tenant) FROM tasks", "SELECT max(tenant) FROM tasks"] {
            let tenant: Option<String> = self.connection.query_row(sql, [], |row| row.get(0))?;
            if let Some(Ok(tenant)) = tenant.as_deref().map(Tenant::new) {
                self.shares.note_tenant(&tenant);
            }
        }
        Ok(())
    }

    /// Claims up to `share` of one tenant's tasks.
    pub(super) fn dispatch_of(&mut self, tenant: &Tenant, share: usize, now: Timestamp) -> Result<(), Error> {
        let sql = format!(
            "SELECT {COLUMNS} FROM tasks INDEXED BY tasks_waiting WHERE tenant = ?1 AND status < 3 AND wake_at <= ?2 ORDER BY wake_at LIMIT ?3"
        );
        let (due, unreadable) =
            select_readable(&self.connection, &sql, params![tenant.as_str(), now.millis(), to_sql(share)])?;
        if due.len() + unreadable.len() < share {
            let next = self.earliest_due(tenant, now)?;
            self.scheduler.set(tenant, next);
        }
        for seq in unreadable {
            self.prepare("UPDATE tasks SET wake_at = ?1 WHERE seq = ?2")?
                .execute([(now + UNREADABLE_PAUSE).millis(), seq])?;
            self.scheduler.waits(tenant, now + UNREADABLE_PAUSE);
        }
        for task in due {
            // Tasks past their deadline expire here. Otherwise a backlog of expired tasks would block all
            // other tasks.
            let event = overdue(&task, JitterSample::from_bits(0), now)
                .unwrap_or(Event::Claim { until: now + LEASE });
            let Ok(change) = transition(task, event, now) else { continue };
            let released = change.released.clone();
            let CommitResult::Done(task) = self.commit(change)? else { continue };
            self.give_back(&task, released, now)?;
            if let State::Running(_) = task.state {
                self.hand(*task);
            }
        }
        Ok(())
    }

    /// Returns the earliest time after `after` at which one of the tenant's waiting tasks needs attention.
    pub(super) fn earliest_due(&self, tenant: &Tenant, after: Timestamp) -> Result<Option<Timestamp>, Error> {
        let mut statement =
            self.prepare("SELECT min(wake_at) FROM tasks INDEXED BY tasks_waiting WHERE tenant = ?1 AND status < 3 AND wake_at > ?2")?;
        let found: Option<i64> =
            statement.query_row(params![tenant.as_str(), after.millis()], |row| row.get(0))?;
        Ok(found.map(Timestamp::from_millis))
    }

    /// Reads the tenants with waiting tasks again if the known state may be wrong.
    pub(super) fn make_sure(&mut self) -> Result<(), Error> {
        if std::mem::take(&mut self.is_unsure) {
            self.scheduler = TenantScheduler::default();
            let mut statement = self.connection.prepare_cached(WAITING_TENANTS)?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                // A row that cannot be read must not block other tenants.
                match Tenant::new(row.get_ref(0)?.as_str()?) {
                    Ok(tenant) => self.scheduler.waits(&tenant, Timestamp::from_millis(row.get(1)?)),
                    Err(error) => {
                        tracing::error!(%error, "a stored tenant name is invalid; the tasks of this tenant do not run");
                    }
                }
            }
        }
        Ok(())
    }

    pub(super) fn will_be_due(&mut self, task: &Task) {
        if let State::Waiting(_) = task.state {
            self.scheduler.waits(&task.tenant, task.due_at);
        }
    }
}
