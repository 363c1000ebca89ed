//! Blocks in, blocks out: each in one transaction with all that follows from it.

use alloy::primitives::{Address, ChainId};
use chain::{
    blocks::{Block, BlockId},
    decode::Event,
};
use store::{
    Writer, block,
    change::{self, Change},
    cursor::{self, Cursor},
    event::{self, NewEvent},
};

use crate::fold::{At, State, Why};

/// What is mirrored: which contracts on which chain.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Subject {
    pub(crate) chain_id: ChainId,
    pub(crate) payments: Address,
    pub(crate) leases: Address,
}

/// A batch that did not go in; the database is as it was before.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The database failed.
    #[error("the database failed")]
    Store(#[from] store::Error),
    /// An event does not follow from the ones before it.
    #[error(
        "{contract}.{name}, log {log_index} of block {block}, does not follow from what came before"
    )]
    Fold {
        /// Its block.
        block: u64,
        /// Its place among the block's logs.
        log_index: u32,
        /// The contract.
        contract: &'static str,
        /// The event.
        name: &'static str,
        /// Why not.
        #[source]
        source: Why,
    },
    /// A row cannot be written down.
    #[error("a row cannot be written down to be undone")]
    Write(#[from] serde_json::Error),
}

fn each(blocks: &[Block], event: impl FnMut(&Event)) {
    blocks.iter().flat_map(|block| &block.events).map(|emitted| &emitted.event).for_each(event);
}

/// The database, with what of it is in memory. After an error it has to be made anew.
#[derive(Debug)]
pub(crate) struct Mirror {
    subject: Subject,
    cursor: Option<Cursor>,
    state: State,
}

impl Mirror {
    pub(crate) fn new(subject: Subject, cursor: Option<Cursor>) -> Self {
        Self { subject, cursor, state: State::default() }
    }

    /// Adds blocks, which follow one another. Returns how many events were in them.
    pub(crate) async fn commit(
        &mut self,
        writer: &mut Writer,
        blocks: &[Block],
    ) -> Result<usize, ApplyError> {
        let Some(last) = blocks.last() else { return Ok(0) };
        let known = self.cursor.map_or(0, |cursor| cursor.finalized);
        let finalized = known.max(last.finalized);
        let mut tx = writer.begin().await?;

        each(blocks, |event| self.state.want(event));
        self.state.load(&mut tx).await?;
        each(blocks, |event| self.state.want_more(event));
        self.state.load(&mut tx).await?;

        let (mut events, mut changes) = (Vec::new(), Vec::new());
        for block in blocks {
            self.fold(block, block.id.number > finalized, &mut events, &mut changes)?;
        }
        let kept: Vec<block::Block> = blocks
            .iter()
            .filter(|block| !block.events.is_empty() || block.id.number >= finalized)
            .map(|block| block::Block {
                number: block.id.number,
                hash: block.id.hash,
                parent: block.parent,
                time: block.time,
            })
            .collect();
        if !kept.is_empty() {
            block::add(&mut tx, &kept).await?;
        }
        if !events.is_empty() {
            event::add(&mut tx, &events).await?;
            self.state.save(&mut tx).await?;
        }
        if !changes.is_empty() {
            change::add(&mut tx, &changes).await?;
        }
        if finalized > known {
            block::prune(&mut tx, known, finalized - 1).await?;
            change::prune(&mut tx, finalized).await?;
        }
        let cursor = Cursor {
            chain_id: self.subject.chain_id,
            payments: self.subject.payments,
            number: last.id.number,
            hash: last.id.hash,
            finalized,
            time: last.time,
        };
        cursor::write(&mut tx, &cursor).await?;
        tx.commit().await?;
        self.cursor = Some(cursor);
        Ok(events.len())
    }

    fn fold(
        &mut self,
        block: &Block,
        undoable: bool,
        events: &mut Vec<NewEvent>,
        changes: &mut Vec<Change>,
    ) -> Result<(), ApplyError> {
        let at = At { block: block.id.number, time: block.time, leases: self.subject.leases };
        for emitted in &block.events {
            let (contract, name) = emitted.event.name();
            let log_index = emitted.log_index;
            let subject = self.state.apply(&emitted.event, at).map_err(|source| {
                ApplyError::Fold { block: at.block, log_index, contract, name, source }
            })?;
            events.push(NewEvent {
                block: at.block,
                log_index,
                tx: emitted.tx,
                contract,
                name,
                args: emitted.event.args(),
                subject,
            });
        }
        Ok(self.state.end_block(at.block, undoable, changes)?)
    }

    /// Takes the blocks after `to` back. Returns how many they were.
    pub(crate) async fn revert(
        &mut self,
        writer: &mut Writer,
        to: BlockId,
    ) -> Result<u64, ApplyError> {
        let Some(cursor) = self.cursor else { return Ok(0) };
        let depth = cursor.number.saturating_sub(to.number);
        let mut tx = writer.begin().await?;
        let undo = change::since(&mut tx, to.number).await?;
        State::put_back(&mut tx, &undo).await?;
        block::remove_after(&mut tx, to.number).await?;
        let time = block::at(&mut tx, to.number).await?.map_or(0, |block| block.time);
        let cursor = Cursor { number: to.number, hash: to.hash, time, ..cursor };
        cursor::write(&mut tx, &cursor).await?;
        cursor::count_reorg(&mut tx, depth).await?;
        tx.commit().await?;
        self.cursor = Some(cursor);
        self.state = State::default();
        Ok(depth)
    }
}
