//! Function that handles dead letters, as the real one does.

use std::sync::Arc;

use futures_util::future::join_all;
use nobat_core::ports::{Receipt, Settlement};
use nobat_worker::maintenance::dead_letters::DeadLetters;

use super::actors::{BATCH, in_time, note_killed};
use super::sabotage::Sabotage;
use crate::model::{DEAD_LETTER_TIMEOUT, Letter, ModelQueue};
use crate::simulation::context::Stage;
use crate::simulation::store_monitor::Witness;

/// Worker that takes dead letters from their queue, a batch at a time.
pub struct Undertaker {
    /// State that all actors share.
    pub stage: Arc<Stage>,
    /// Monitor that checks its work.
    pub witness: Arc<Witness>,
    /// Dead-letter queue.
    pub queue: Arc<ModelQueue>,
    /// Engine under test.
    pub engine: DeadLetters,
    /// Sabotage of the engine, if any.
    pub sabotage: Option<Sabotage>,
}

impl Undertaker {
    /// Handles dead letters until it is dropped.
    pub async fn work(self) {
        loop {
            let letters = self.queue.letters(BATCH).await;
            let count = letters.len();
            let work = join_all(letters.into_iter().map(|letter| self.settle(letter)));
            match in_time(&self.stage, DEAD_LETTER_TIMEOUT, work).await {
                Some(settlements) => self.queue.forget(&settlements),
                None => note_killed(&self.stage, "dead letters", count),
            }
        }
    }

    async fn settle(&self, letter: Letter) -> (Receipt, Settlement) {
        let opened = self.witness.note_opened(&letter);
        let settlement = match self.sabotage {
            Some(Sabotage::DropsDeadLetters) => Settlement::Acknowledge,
            Some(Sabotage::GivesUpTooSoon) => self.engine.run(&letter.name, u32::MAX).await,
            _ => self.engine.run(&letter.name, letter.redrives).await,
        };
        if settlement == Settlement::Acknowledge {
            self.witness.check_acknowledged(&opened);
        }
        (letter.receipt, settlement)
    }
}
