//! The chain, block by block, with what the contracts emitted; and what of it went away again.
//!
//! What a node says is checked against the blocks' own hashes: a header makes up its hash and names its parent; the
//! receipts of a recent block make up the root that its header names, so that no log can be left out or added. In blocks
//! that are final logs are asked for in ranges, twice (of two nodes where there are two), and have to be in the block's
//! bloom; a block whose bloom speaks of the contracts and for which no log is given is proven like a recent one.

mod announced;
mod node;

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use alloy::primitives::{Address, B256};
use reqwest::Url;
use tokio::{
    sync::{Notify, mpsc, watch},
    task::{JoinError, JoinSet},
};

pub use self::node::NodeError;
use self::node::{Log, Node, Sealed};
use crate::decode::{Contracts, DecodeError, Event};

/// How many ranges are fetched at a time.
const WINDOW: usize = 4;

/// The most blocks of a range.
const MAX_RANGE: u64 = 2_000;

/// The most blocks of a range that may still go away.
const MAX_RECENT_RANGE: u64 = 16;

/// About how many events a range should hold, so that what is under way fits into little memory.
const EVENTS_PER_RANGE: u64 = 4_000;

/// How long a range should take.
const RANGE_TIME: Duration = Duration::from_secs(2);

/// Blocks that are kept undoable whatever a node calls final.
pub const MIN_DEPTH: u64 = 64;

/// Of a chain that does not say what is final: how deep a block has to be.
const DEPTH_WITHOUT_FINALITY: u64 = 256;

/// The longest pause after a failure.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// A block, by height and hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockId {
    /// Its number.
    pub number: u64,
    /// Its hash.
    pub hash: B256,
}

/// What happened to the chain.
#[derive(Debug)]
pub enum Step {
    /// It grew by a block.
    Commit(Block),
    /// The blocks after `to` went away.
    Revert {
        /// The last block that stays.
        to: BlockId,
    },
}

/// A block with what the contracts emitted in it.
#[derive(Debug)]
pub struct Block {
    /// Its height and hash.
    pub id: BlockId,
    /// The hash of the one before it.
    pub parent: B256,
    /// Its time, in Unix seconds.
    pub time: u64,
    /// What the contracts emitted, in order.
    pub events: Vec<Emitted>,
    /// Blocks up to here were final when it was fetched.
    pub finalized: u64,
}

/// An event where it was emitted.
#[derive(Debug)]
pub struct Emitted {
    /// Its place among the block's logs.
    pub log_index: u32,
    /// The transaction.
    pub tx: B256,
    /// The event.
    pub event: Event,
}

/// The head of the chain, as the node tells it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Seen {
    /// Its number.
    pub number: u64,
    /// Its time.
    pub time: u64,
    /// How many requests failed so far.
    pub failures: u64,
}

/// The chain cannot be followed any further.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// A node's address is not one.
    #[error("{0:?} is not the URL of a JSON-RPC node over http or https")]
    Url(String),
    /// An address to subscribe at is not one.
    #[error("{0:?} is not the URL of a JSON-RPC node over ws or wss")]
    Subscription(String),
    /// There is no node.
    #[error("no JSON-RPC node was named")]
    NoNode,
    /// HTTP cannot be spoken.
    #[error("HTTP could not be set up")]
    Http(#[source] reqwest::Error),
    /// Blocks went away that had been final.
    #[error(
        "the chain has another history than what is here from block {0} down, which had been final: \
         is it another chain? A new one needs a new database"
    )]
    TooDeep(u64),
    /// A contract is newer than this program.
    #[error("block {0} cannot be understood")]
    Decode(u64, #[source] DecodeError),
    /// A part of the program failed.
    #[error("fetching blocks failed")]
    Task(#[from] JoinError),
}

/// Why a pass ended early.
enum Halt {
    /// A node failed; another try may do.
    Node(NodeError),
    /// Nobody takes the steps any more.
    Gone,
    /// No try will do.
    Fatal(FollowError),
}

impl From<NodeError> for Halt {
    fn from(err: NodeError) -> Self {
        Self::Node(err)
    }
}

/// How blocks are followed.
#[derive(Debug, Clone)]
pub struct Follow {
    /// The nodes, the preferred one first.
    pub urls: Vec<String>,
    /// The first block of interest.
    pub start: u64,
    /// The last block that is known, if any.
    pub tip: Option<BlockId>,
    /// Up to where blocks are final, as far as is known.
    pub finalized: u64,
    /// Blocks that are known and may go away, oldest first, with the one that they stand on.
    pub recent: Vec<BlockId>,
    /// How often the head is looked for.
    pub poll: Duration,
    /// Where nodes announce new heads over WebSocket, each of which is looked for at once.
    pub subscribe: Vec<String>,
    /// Whether headers and receipts are hashed. A chain whose headers are made up differently needs this off.
    pub proof: bool,
    /// Whether blocks that are final are proven like recent ones, which is slow.
    pub strict: bool,
}

/// Follows the chain.
pub struct Blocks {
    nodes: Arc<Nodes>,
    contracts: Arc<Contracts>,
    addresses: Arc<[Address]>,
    start: u64,
    tip: Option<BlockId>,
    finalized: u64,
    recent: VecDeque<BlockId>,
    poll: Duration,
    subscribe: Vec<Url>,
    strict: bool,
    range: u64,
    window: usize,
    seen: Seen,
}

impl fmt::Debug for Blocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Blocks").field("tip", &self.tip).finish_non_exhaustive()
    }
}

/// The nodes, one of which is asked until it fails.
struct Nodes {
    nodes: Vec<Node>,
    current: AtomicUsize,
    proof: bool,
}

impl Nodes {
    fn current(&self) -> &Node {
        &self.nodes[self.current.load(Ordering::Relaxed) % self.nodes.len()]
    }

    /// One that is not the current one, if there is one.
    fn other(&self) -> Option<&Node> {
        let next = self.current.load(Ordering::Relaxed) + 1;
        (self.nodes.len() > 1).then(|| &self.nodes[next % self.nodes.len()])
    }

    fn turn(&self) {
        self.current.fetch_add(1, Ordering::Relaxed);
    }

    /// Makes sure that no majority of the other nodes that answer has another block there.
    async fn agree(&self, head: &Sealed) -> Result<(), NodeError> {
        let mine = self.current.load(Ordering::Relaxed) % self.nodes.len();
        let number = head.header.number;
        let (mut same, mut different) = (1, 0);
        for (_, node) in self.nodes.iter().enumerate().filter(|(i, _)| *i != mine) {
            // One that fails or has not got there yet has no say.
            let asked = tokio::time::timeout(Duration::from_secs(2), node.header(number)).await;
            match asked {
                Ok(Ok(Some(theirs))) if theirs.hash == head.hash => same += 1,
                Ok(Ok(Some(_))) => different += 1,
                Ok(Ok(None) | Err(_)) | Err(_) => (),
            }
        }
        if different >= same { Err(NodeError::Outvoted(number)) } else { Ok(()) }
    }
}

impl Blocks {
    /// Prepares to follow the chain of `nodes`.
    ///
    /// # Errors
    /// When a node's address is not one, or there is none.
    pub fn new(contracts: Contracts, follow: Follow) -> Result<Self, FollowError> {
        let node = |url: &String| {
            let parsed = Url::parse(url).ok().filter(|url| url.scheme().starts_with("http"));
            let parsed = parsed.ok_or_else(|| FollowError::Url(url.clone()))?;
            Node::new(parsed, follow.proof).map_err(FollowError::Http)
        };
        let nodes = follow.urls.iter().map(node).collect::<Result<Vec<_>, _>>()?;
        if nodes.is_empty() {
            return Err(FollowError::NoNode);
        }
        let announcer = |url: &String| {
            let parsed = Url::parse(url).ok().filter(|url| matches!(url.scheme(), "ws" | "wss"));
            parsed.ok_or_else(|| FollowError::Subscription(url.clone()))
        };
        let subscribe = follow.subscribe.iter().map(announcer).collect::<Result<_, _>>()?;
        Ok(Self {
            nodes: Arc::new(Nodes { nodes, current: AtomicUsize::new(0), proof: follow.proof }),
            addresses: contracts.addresses().collect(),
            contracts: Arc::new(contracts),
            // Nothing is emitted in a genesis, and it has no parent.
            start: follow.start.max(1),
            tip: follow.tip,
            finalized: follow.finalized,
            recent: follow.recent.into(),
            poll: follow.poll,
            subscribe,
            strict: follow.strict,
            range: 16,
            window: WINDOW,
            seen: Seen::default(),
        })
    }

    /// Follows the chain until nobody takes its steps any more. While no node answers nothing is told.
    ///
    /// # Errors
    /// When the chain cannot be followed any further, whatever the nodes do.
    pub async fn run(
        mut self,
        steps: mpsc::Sender<Step>,
        heads: watch::Sender<Seen>,
    ) -> Result<(), FollowError> {
        let announced = Arc::new(Notify::new());
        let mut subscriptions = JoinSet::new();
        for url in std::mem::take(&mut self.subscribe) {
            subscriptions.spawn(announced::tell(url, Arc::clone(&announced)));
        }
        let mut failures = 0_u32;
        loop {
            let before = self.tip;
            let pause = match self.pass(&steps, &heads).await {
                Ok(()) => {
                    if failures > 0 {
                        tracing::info!("{} answers", self.nodes.current().name());
                    }
                    failures = 0;
                    self.poll
                }
                Err(Halt::Gone) => return Ok(()),
                Err(Halt::Fatal(err)) => return Err(err),
                Err(Halt::Node(err)) => {
                    let name = self.nodes.current().name();
                    if failures == 0 {
                        let err = causes(&err);
                        tracing::warn!(error = %err, "{name} cannot be followed for now: {err}");
                    }
                    self.range = (self.range / 2).max(1);
                    self.window = 1;
                    self.nodes.turn();
                    self.seen.failures += 1;
                    heads.send_replace(self.seen);
                    failures = if self.tip == before { failures + 1 } else { 1 };
                    // All of them are tried before there is a pause.
                    let rounds = failures / u32::try_from(self.nodes.nodes.len()).unwrap_or(1);
                    let pause = Duration::from_millis(50) * 2_u32.pow(rounds.min(7));
                    if rounds == 0 { Duration::ZERO } else { pause.min(LONGEST_PAUSE) }
                }
            };
            tokio::select! {
                () = steps.closed() => return Ok(()),
                () = tokio::time::sleep(pause) => (),
                // A node that fails is left alone for its pause, whatever is announced.
                () = announced.notified(), if failures == 0 => (),
            }
        }
    }

    /// Goes from the tip to the head, if they differ.
    async fn pass(
        &mut self,
        steps: &mpsc::Sender<Step>,
        heads: &watch::Sender<Seen>,
    ) -> Result<(), Halt> {
        let nodes = Arc::clone(&self.nodes);
        let node = nodes.current();
        let head = node.head().await?;
        self.seen.number = head.header.number;
        self.seen.time = head.header.timestamp;
        // Also when nothing is new: that the node answers is news.
        heads.send_replace(self.seen);
        if self.tip.is_some_and(|tip| tip.hash == head.hash) {
            return Ok(());
        }
        nodes.agree(&head).await?;
        if let Some(tip) = self.tip
            && tip.hash != head.header.parent_hash
        {
            match self.fork(node, tip, &head).await? {
                Fork::None => (),
                Fork::Behind => return Ok(()),
                Fork::At(to) => self.revert(to, steps).await?,
            }
        }
        let next = self.tip.map_or(self.start, |tip| tip.number + 1);
        if next > head.header.number {
            return Ok(());
        }
        let number = head.header.number;
        // The block that just came is here already, but for its logs.
        let newest = if next == number { vec![head] } else { Vec::new() };
        let fetch = Fetch::of(self);
        let (depth, newest) = tokio::try_join!(
            async { node.finalized().await.map_err(Halt::Node) },
            fetch.recent(newest)
        )?;
        let depth = match depth {
            Some(depth) => depth.min(number.saturating_sub(MIN_DEPTH)),
            None => number.saturating_sub(DEPTH_WITHOUT_FINALITY),
        };
        self.finalized = self.finalized.max(depth);
        if next == number {
            return self.commit(newest, steps).await.map(|_linked| ());
        }
        self.fill(next, number, steps).await
    }

    /// Where the node's chain leaves what is known.
    async fn fork(&self, node: &Node, tip: BlockId, head: &Sealed) -> Result<Fork, Halt> {
        match node.header(tip.number).await? {
            Some(theirs) if theirs.hash == tip.hash => return Ok(Fork::None),
            Some(_) => (),
            // It is behind, or its chain became shorter: that only matters once it has another block than we.
            None => {
                let known = self.recent.iter().find(|known| known.number == head.header.number);
                match known {
                    Some(known) if known.hash == head.hash => return Ok(Fork::Behind),
                    None if head.header.number < tip.number.saturating_sub(MIN_DEPTH) => {
                        return Ok(Fork::Behind);
                    }
                    Some(_) | None => (),
                }
            }
        }
        for known in self.recent.iter().rev() {
            if known.number > head.header.number {
                continue;
            }
            let theirs = node.header(known.number).await?;
            let theirs = theirs.ok_or(NodeError::NoBlock(known.number))?;
            // Of the block that all else stands on only the hash is known; before the first block there is nothing.
            if theirs.hash == known.hash || known.number < self.start {
                return Ok(Fork::At(*known));
            }
        }
        Err(Halt::Fatal(FollowError::TooDeep(
            self.recent.front().map_or(tip.number, |known| known.number),
        )))
    }

    async fn revert(&mut self, to: BlockId, steps: &mpsc::Sender<Step>) -> Result<(), Halt> {
        self.recent.retain(|known| known.number <= to.number);
        self.tip = Some(to);
        steps.send(Step::Revert { to }).await.map_err(|_closed| Halt::Gone)
    }

    /// Fetches a range of blocks, several parts of it at a time, and hands them on in order.
    async fn fill(&mut self, from: u64, to: u64, steps: &mpsc::Sender<Step>) -> Result<(), Halt> {
        let mut tasks = JoinSet::new();
        let mut ready: BTreeMap<u64, Part> = BTreeMap::new();
        let (mut fetch, mut next) = (from, from);
        let mut failed = None;
        while next <= to {
            while tasks.len() + ready.len() < self.window && fetch <= to {
                let is_final = fetch <= self.finalized && !self.strict;
                let (most, limit) = if is_final {
                    (self.range, self.finalized.min(to))
                } else {
                    (MAX_RECENT_RANGE, to)
                };
                let end = limit.min(fetch + most.min(self.range) - 1);
                tasks.spawn(Fetch::of(self).part(fetch, end, is_final));
                fetch = end + 1;
            }
            let Some(part) = tasks.join_next().await else { break };
            match part.map_err(|err| Halt::Fatal(err.into()))? {
                Ok(part) => {
                    ready.insert(part.from, part);
                }
                // What came before it still counts.
                Err(halt) if failed.is_none() => {
                    failed = Some(halt);
                    fetch = to + 1;
                }
                Err(_) => (),
            }
            while let Some(part) = ready.remove(&next) {
                next = part.to + 1;
                self.adapt(&part);
                self.window = (self.window + 1).min(WINDOW);
                if !self.commit(part.blocks, steps).await? {
                    // The chain changed meanwhile: the next pass finds out where.
                    return Ok(());
                }
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// Makes ranges longer or shorter, by what the last one held and took.
    fn adapt(&mut self, part: &Part) {
        let length = part.to - part.from + 1;
        let events: usize = part.blocks.iter().map(|block| block.events.len()).sum();
        let by_events = length * EVENTS_PER_RANGE / (events as u64).max(1);
        let by_time = if part.took > RANGE_TIME { length / 2 } else { length * 2 };
        self.range = by_events.min(by_time).clamp(1, MAX_RANGE);
    }

    /// Hands blocks on that follow the tip. Returns whether they do.
    async fn commit(
        &mut self,
        blocks: Vec<Block>,
        steps: &mpsc::Sender<Step>,
    ) -> Result<bool, Halt> {
        for mut block in blocks {
            block.finalized = self.finalized.min(block.id.number);
            match self.tip {
                Some(tip) if tip.hash != block.parent => return Ok(false),
                Some(_) => (),
                None => {
                    let base = BlockId { number: block.id.number - 1, hash: block.parent };
                    self.recent.push_back(base);
                }
            }
            self.tip = Some(block.id);
            self.recent.push_back(block.id);
            // One final block stays, for the others to stand on.
            while self.recent.get(1).is_some_and(|known| known.number <= block.finalized) {
                self.recent.pop_front();
            }
            steps.send(Step::Commit(block)).await.map_err(|_closed| Halt::Gone)?;
        }
        Ok(true)
    }
}

/// Where a node's chain leaves what is known.
enum Fork {
    /// It does not.
    None,
    /// It has less of it.
    Behind,
    /// After this block.
    At(BlockId),
}

/// A part of a range.
struct Part {
    from: u64,
    to: u64,
    took: Duration,
    blocks: Vec<Block>,
}

/// What is needed to fetch blocks, apart from the one who follows.
struct Fetch {
    nodes: Arc<Nodes>,
    contracts: Arc<Contracts>,
    addresses: Arc<[Address]>,
}

impl Fetch {
    fn of(blocks: &Blocks) -> Self {
        Self {
            nodes: Arc::clone(&blocks.nodes),
            contracts: Arc::clone(&blocks.contracts),
            addresses: Arc::clone(&blocks.addresses),
        }
    }

    async fn part(self, from: u64, to: u64, is_final: bool) -> Result<Part, Halt> {
        let began = Instant::now();
        let blocks = if is_final {
            self.range(from, to).await?
        } else {
            let headers = self.nodes.current().headers(from, to).await?;
            self.recent(headers).await?
        };
        Ok(Part { from, to, took: began.elapsed(), blocks })
    }

    /// Blocks that may go away: each is proven.
    async fn recent(&self, headers: Vec<Sealed>) -> Result<Vec<Block>, Halt> {
        let node = self.nodes.current();
        let hits: Vec<&Sealed> =
            headers.iter().filter(|block| block.may_hold(&self.addresses)).collect();
        let mut logs = self.logs_of(node, &hits).await?;
        let block = |sealed: &Sealed| {
            let logs = logs.remove(&sealed.header.number).unwrap_or_default();
            self.block(sealed, logs)
        };
        headers.iter().map(block).collect()
    }

    /// All logs of these blocks, by their numbers.
    async fn logs_of(
        &self,
        node: &Node,
        blocks: &[&Sealed],
    ) -> Result<BTreeMap<u64, Vec<Log>>, NodeError> {
        let numbers = blocks.iter().map(|block| block.header.number);
        if self.nodes.proof {
            return Ok(numbers.zip(node.proven_logs(blocks).await?).collect());
        }
        let mut found = BTreeMap::new();
        for (number, block) in numbers.zip(blocks) {
            let logs = node.logs_of_block(&self.addresses, block).await?;
            let again = node.logs_of_block(&self.addresses, block).await?;
            if logs.len() != again.len() {
                return Err(NodeError::Inconsistent(number, number));
            }
            found.insert(number, logs);
        }
        Ok(found)
    }

    /// Blocks that do not go away any more: their logs are asked for at once, and twice.
    async fn range(&self, from: u64, to: u64) -> Result<Vec<Block>, Halt> {
        let node = self.nodes.current();
        let second = self.nodes.other().unwrap_or(node);
        let asked = tokio::try_join!(node.headers(from, to), async {
            let (said, logs) = node.logs(&self.addresses, from, to).await?;
            let same = second.says_the_same(&self.addresses, (from, to), &said, &logs).await?;
            Ok((same, logs))
        },);
        let (headers, (same, logs)) = asked?;
        if !same {
            // Then only what the receipts say counts.
            tracing::warn!(from, to, "two answers for the logs of blocks {from} to {to} differ");
            return self.recent(headers).await;
        }
        let mut found: BTreeMap<u64, Vec<Log>> = BTreeMap::new();
        for log in logs {
            found.entry(log.block_number).or_default().push(log);
        }
        let silent: Vec<&Sealed> = headers
            .iter()
            .filter(|block| !found.contains_key(&block.header.number))
            .filter(|block| block.may_hold(&self.addresses))
            .collect();
        let proven = self.logs_of(node, &silent).await?;
        found.extend(proven);
        let mut blocks = Vec::with_capacity(headers.len());
        for sealed in &headers {
            let logs = found.remove(&sealed.header.number).unwrap_or_default();
            if !logs.is_sorted_by(|a, b| a.log_index < b.log_index) {
                return Err(NodeError::ForeignLog(sealed.header.number).into());
            }
            match self.block(sealed, logs) {
                Ok(block) => blocks.push(block),
                // Before the program gives up on a log, the log is proven.
                Err(Halt::Fatal(_)) => return self.recent(headers).await,
                Err(halt) => return Err(halt),
            }
        }
        if let Some((number, _)) = found.pop_first() {
            return Err(NodeError::ForeignLog(number).into());
        }
        Ok(blocks)
    }

    fn block(&self, sealed: &Sealed, logs: Vec<Log>) -> Result<Block, Halt> {
        let number = sealed.header.number;
        let mut events = Vec::with_capacity(logs.len());
        for log in logs {
            if !log.is_of(sealed) {
                return Err(NodeError::ForeignLog(number).into());
            }
            let event = self.contracts.decode(log.address, &log.topics, &log.data);
            let event = event.map_err(|err| Halt::Fatal(FollowError::Decode(number, err)))?;
            let Some(event) = event else { continue };
            let log_index = u32::try_from(log.log_index);
            let log_index = log_index.map_err(|_err| NodeError::ForeignLog(number))?;
            events.push(Emitted { log_index, tx: log.transaction_hash, event });
        }
        Ok(Block {
            id: BlockId { number, hash: sealed.hash },
            parent: sealed.header.parent_hash,
            time: sealed.header.timestamp,
            events,
            finalized: 0,
        })
    }
}

/// An error with what caused it.
fn causes(err: &dyn std::error::Error) -> String {
    let mut text = err.to_string();
    let mut source = err.source();
    while let Some(err) = source {
        text = format!("{text}: {err}");
        source = err.source();
    }
    text
}
