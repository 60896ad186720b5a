//! Limits on the server's resources that one tenant may use.

pub(crate) mod body_budget;
pub(crate) mod endpoint_test_slots;
pub(crate) mod pending_quota;
pub(crate) mod request_rate;
