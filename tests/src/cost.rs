//! What tasks cost on AWS: scenarios that the real engines run on an emulator with a meter on them, and what comes to that in dollars.

mod clock;
mod handlers;
pub mod page;
pub mod prices;
pub mod scenario;
pub mod stage;
pub mod starts;
