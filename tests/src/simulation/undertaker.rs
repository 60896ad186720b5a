//! The function that sees to dead letters, as the real one does.

use std::sync::Arc;

use futures_util::future::join_all;
use nobat_core::ports::{Receipt, Settlement};
use nobat_worker::dead_letter::DeadLetters;

use super::actors::{BATCH, in_time, note_killed};
use super::sabotage::Sabotage;
use super::stage::Stage;
use super::witness::Witness;
use crate::model::{DEAD_LETTER_TIMEOUT, Letter, ModelQueue};

/// Takes dead letters out of their queue, a batch at a time.
pub struct Undertaker {
    /// What it shares with the others.
    pub stage: Arc<Stage>,
    /// Who sees whether it does its work.
    pub witness: Arc<Witness>,
    /// The queue of dead letters.
    pub queue: Arc<ModelQueue>,
    /// How it does it.
    pub engine: DeadLetters,
    /// What is done to it.
    pub sabotage: Option<Sabotage>,
}

impl Undertaker {
    /// Works for as long as it is let.
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
        let opened = self.witness.opens(&letter);
        let settlement = match self.sabotage {
            Some(Sabotage::DropsDeadLetters) => Settlement::Acknowledge,
            Some(Sabotage::GivesUpTooSoon) => self.engine.run(&letter.name, u32::MAX).await,
            _ => self.engine.run(&letter.name, letter.redrives).await,
        };
        if settlement == Settlement::Acknowledge {
            self.witness.forgets(&opened);
        }
        (letter.receipt, settlement)
    }
}
