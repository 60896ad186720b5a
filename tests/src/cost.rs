//! Cost of tasks on AWS: the real engines run scenarios on an emulator with a meter, and a price list turns
//! the usage into dollars.

mod clock;
pub mod context;
mod handlers;
pub mod page;
pub mod prices;
pub mod scenario;
pub mod starts;
