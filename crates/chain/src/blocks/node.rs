//! One JSON-RPC node, whose answers are checked as far as they can be.

use std::{borrow::Cow, time::Duration};

use alloy::{
    consensus::{Header, proofs::calculate_receipt_root},
    primitives::{Address, B256, Bloom, BloomInput, Bytes},
    rpc::types::TransactionReceipt,
    serde::quantity,
};
use reqwest::{Client, StatusCode, Url};
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// How often something is asked before a node counts as failing.
const TRIES: u32 = 3;

/// The pause after the first try, which doubles.
const PAUSE: Duration = Duration::from_millis(20);

/// The longest answer that is read.
const LONGEST_ANSWER: usize = 256 << 20;

/// The most requests in one batch; nodes refuse more.
pub(super) const MAX_BATCH: usize = 100;

/// What a node did wrong. Nothing that it said in the same answer is used.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// It did not answer.
    #[error("it does not answer")]
    Send(#[source] reqwest::Error),
    /// It answered with an HTTP failure.
    #[error("it answers with status {0}")]
    Status(u16),
    /// It refused the request.
    #[error("it refuses: {message} ({code})")]
    Refused {
        /// JSON-RPC's code.
        code: i64,
        /// What it says.
        message: String,
    },
    /// Its answer is not JSON-RPC's.
    #[error("its answer cannot be read")]
    Format(#[source] serde_json::Error),
    /// Its answer leaves requests out.
    #[error("it answers {got} of {asked} requests")]
    Unanswered {
        /// Requests.
        asked: usize,
        /// Answers.
        got: usize,
    },
    /// Its answer does not end.
    #[error("its answer is longer than {LONGEST_ANSWER} bytes")]
    TooLong,
    /// It has no such block (yet, or any more).
    #[error("it does not have block {0}")]
    NoBlock(u64),
    /// It gave another block than it was asked for, or one whose contents do not make up its hash.
    #[error("what it gives for block {0} is not that block")]
    Forged(u64),
    /// The receipts are not those of the block.
    #[error("its receipts of block {0} are not those of its header")]
    Receipts(u64),
    /// A log is of another block, another contract, or not in the block's bloom.
    #[error("it gives a log that is not in block {0}")]
    ForeignLog(u64),
    /// Two answers to the same question differ.
    #[error("two answers for the logs of blocks {0} to {1} differ")]
    Inconsistent(u64, u64),
    /// Other nodes have another block at this height.
    #[error("other nodes have another block {0}")]
    Outvoted(u64),
}

/// A node.
#[derive(Debug)]
pub(super) struct Node {
    url: Url,
    client: Client,
    /// Whether headers and receipts are hashed; if not, the node's word is taken for them.
    proof: bool,
}

/// A header with its hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sealed {
    pub(super) hash: B256,
    pub(super) header: Header,
}

/// A log, with what a block's header cannot say of it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Log {
    pub(super) address: Address,
    pub(super) topics: Vec<B256>,
    pub(super) data: Bytes,
    pub(super) block_hash: B256,
    #[serde(with = "quantity")]
    pub(super) block_number: u64,
    pub(super) transaction_hash: B256,
    #[serde(with = "quantity")]
    pub(super) log_index: u64,
}

#[derive(Deserialize)]
struct Answer<'a> {
    id: usize,
    #[serde(borrow, default)]
    result: Option<&'a RawValue>,
    #[serde(default)]
    error: Option<Refusal<'a>>,
}

#[derive(Deserialize)]
struct Refusal<'a> {
    code: i64,
    #[serde(borrow)]
    message: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Hashed {
    hash: B256,
}

/// A request: its method and parameters.
type Call = (&'static str, Value);

impl Node {
    pub(super) fn new(url: Url, proof: bool) -> Result<Self, reqwest::Error> {
        Ok(Self { url, client: Client::builder().timeout(PATIENCE).build()?, proof })
    }

    /// Its address without what may be a secret in it.
    pub(super) fn name(&self) -> String {
        self.url.origin().ascii_serialization()
    }

    /// Its latest block.
    pub(super) async fn head(&self) -> Result<Sealed, NodeError> {
        let call = ("eth_getBlockByNumber", json!(["latest", false]));
        let head = self.ask(&[call], |answers| self.sealed(answers[0], None)).await?;
        head.ok_or(NodeError::NoBlock(0))
    }

    /// The number of the block that it calls final; `None` if it does not know of such a thing.
    pub(super) async fn finalized(&self) -> Result<Option<u64>, NodeError> {
        let call = ("eth_getBlockByNumber", json!(["finalized", false]));
        match self.ask(&[call], |answers| self.sealed(answers[0], None)).await {
            Ok(header) => Ok(header.map(|sealed| sealed.header.number)),
            Err(NodeError::Refused { .. }) => Ok(None),
            Err(err) => Err(err),
        }
    }

    /// The block at a height, if it has one there.
    pub(super) async fn header(&self, number: u64) -> Result<Option<Sealed>, NodeError> {
        let call = ("eth_getBlockByNumber", json!([hex(number), false]));
        self.ask(&[call], |answers| self.sealed(answers[0], Some(number))).await
    }

    /// The blocks of a range that it has, in order, each the next one's parent.
    pub(super) async fn headers(&self, from: u64, to: u64) -> Result<Vec<Sealed>, NodeError> {
        let mut headers: Vec<Sealed> = Vec::new();
        let mut next = from;
        while next <= to {
            let end = to.min(next + MAX_BATCH as u64 - 1);
            let calls: Vec<Call> = (next..=end)
                .map(|number| ("eth_getBlockByNumber", json!([hex(number), false])))
                .collect();
            let first = next;
            let batch = self
                .ask(&calls, |answers| {
                    let numbered = (first..).zip(answers);
                    numbered.map(|(number, raw)| self.sealed(raw, Some(number))).collect()
                })
                .await?;
            let batch: Vec<Option<Sealed>> = batch;
            for (number, sealed) in (next..).zip(batch) {
                let sealed = sealed.ok_or(NodeError::NoBlock(number))?;
                if headers.last().is_some_and(|last| last.hash != sealed.header.parent_hash) {
                    return Err(NodeError::Forged(number));
                }
                headers.push(sealed);
            }
            next = end + 1;
        }
        Ok(headers)
    }

    /// What it says are the logs of `addresses` in a range of blocks: as it says it, to be compared, and read.
    pub(super) async fn logs(
        &self,
        addresses: &[Address],
        from: u64,
        to: u64,
    ) -> Result<(Box<RawValue>, Vec<Log>), NodeError> {
        let filter = json!([{ "address": addresses, "fromBlock": hex(from), "toBlock": hex(to) }]);
        self.ask(&[("eth_getLogs", filter)], |answers| {
            let logs = read(answers[0])?;
            Ok((answers[0].to_owned(), logs))
        })
        .await
    }

    /// Whether it says the same about these logs as `said`, word for word or in substance.
    pub(super) async fn says_the_same(
        &self,
        addresses: &[Address],
        (from, to): (u64, u64),
        said: &RawValue,
        logs: &[Log],
    ) -> Result<bool, NodeError> {
        let filter = json!([{ "address": addresses, "fromBlock": hex(from), "toBlock": hex(to) }]);
        self.ask(&[("eth_getLogs", filter)], |answers| {
            if answers[0].get() == said.get() {
                return Ok(true);
            }
            let again: Vec<Log> = read(answers[0])?;
            let same = |(a, b): (&Log, &Log)| {
                (a.block_hash, a.log_index, a.address, &a.topics, &a.data)
                    == (b.block_hash, b.log_index, b.address, &b.topics, &b.data)
            };
            Ok(again.len() == logs.len() && again.iter().zip(logs).all(same))
        })
        .await
    }

    /// All logs of blocks, which the receipts prove to be all.
    pub(super) async fn proven_logs(&self, blocks: &[&Sealed]) -> Result<Vec<Vec<Log>>, NodeError> {
        let mut found = Vec::with_capacity(blocks.len());
        for blocks in blocks.chunks(MAX_BATCH / 4) {
            let calls: Vec<Call> =
                blocks.iter().map(|b| ("eth_getBlockReceipts", json!([b.hash]))).collect();
            let logs = self
                .ask(&calls, |answers| {
                    blocks.iter().zip(answers).map(|(block, raw)| proven(block, raw)).collect()
                })
                .await?;
            let logs: Vec<Vec<Log>> = logs;
            found.extend(logs);
        }
        Ok(found)
    }

    /// The logs of `addresses` in one block, by its hash, as it says.
    pub(super) async fn logs_of_block(
        &self,
        addresses: &[Address],
        block: &Sealed,
    ) -> Result<Vec<Log>, NodeError> {
        let filter = json!([{ "address": addresses, "blockHash": block.hash }]);
        self.ask(&[("eth_getLogs", filter)], |answers| read(answers[0])).await
    }

    fn sealed(&self, raw: &RawValue, number: Option<u64>) -> Result<Option<Sealed>, NodeError> {
        if raw.get() == "null" {
            return Ok(None);
        }
        let header: Header = read(raw)?;
        let Hashed { hash } = read(raw)?;
        let forged = self.proof && header.hash_slow() != hash;
        if forged || number.is_some_and(|number| number != header.number) {
            return Err(NodeError::Forged(number.unwrap_or(header.number)));
        }
        Ok(Some(Sealed { hash, header }))
    }

    /// Asks, again if there was no answer, and reads what was answered.
    async fn ask<T>(
        &self,
        calls: &[Call],
        read: impl FnOnce(&[&RawValue]) -> Result<T, NodeError>,
    ) -> Result<T, NodeError> {
        let mut tries = 1;
        loop {
            let failure = match self.post(calls).await {
                Ok(bytes) => match answers(&bytes, calls.len()) {
                    Ok(answers) => return read(&answers),
                    Err(err) => err,
                },
                Err(err) => err,
            };
            if tries == TRIES {
                return Err(failure);
            }
            tokio::time::sleep(PAUSE * 2_u32.pow(tries)).await;
            tries += 1;
        }
    }

    async fn post(&self, calls: &[Call]) -> Result<Vec<u8>, NodeError> {
        let body: Vec<Value> = calls
            .iter()
            .enumerate()
            .map(|(id, (method, params))| {
                json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params })
            })
            .collect();
        // Not every node takes batches; none refuses a single request.
        let request = self.client.post(self.url.clone());
        let request = if body.len() == 1 { request.json(&body[0]) } else { request.json(&body) };
        let send = |err: reqwest::Error| NodeError::Send(err.without_url());
        let mut response = request.send().await.map_err(send)?;
        if response.status() != StatusCode::OK {
            return Err(NodeError::Status(response.status().as_u16()));
        }
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(send)? {
            if bytes.len() + chunk.len() > LONGEST_ANSWER {
                return Err(NodeError::TooLong);
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }
}

/// The answers in the order of what was asked.
fn answers(bytes: &[u8], asked: usize) -> Result<Vec<&RawValue>, NodeError> {
    let answers: Vec<Answer<'_>> = if bytes.first() == Some(&b'[') {
        serde_json::from_slice(bytes).map_err(NodeError::Format)?
    } else {
        vec![serde_json::from_slice(bytes).map_err(NodeError::Format)?]
    };
    let mut found: Vec<Option<&RawValue>> = vec![None; asked];
    for Answer { id, result, error } in answers {
        if let Some(Refusal { code, message }) = error {
            return Err(NodeError::Refused { code, message: message.into_owned() });
        }
        if let Some(place) = found.get_mut(id) {
            *place = Some(result.unwrap_or(RawValue::NULL));
        }
    }
    let found: Vec<&RawValue> = found.into_iter().flatten().collect();
    if found.len() < asked {
        return Err(NodeError::Unanswered { asked, got: found.len() });
    }
    Ok(found)
}

impl Sealed {
    /// Whether one of `addresses` may have emitted something in this block; if not, none did.
    pub(super) fn may_hold(&self, addresses: &[Address]) -> bool {
        let bloom = &self.header.logs_bloom;
        addresses.iter().any(|address| bloom.contains_input(BloomInput::Raw(address.as_slice())))
    }
}

impl Log {
    /// Whether it is of `block`, as far as that can be told from the header.
    pub(super) fn is_of(&self, block: &Sealed) -> bool {
        let bloom: &Bloom = &block.header.logs_bloom;
        self.block_hash == block.hash
            && self.block_number == block.header.number
            && bloom.contains_raw_log(self.address, &self.topics)
    }
}

/// The logs of a block's receipts, once their root is the header's.
fn proven(block: &Sealed, raw: &RawValue) -> Result<Vec<Log>, NodeError> {
    let number = block.header.number;
    if raw.get() == "null" {
        return Err(NodeError::NoBlock(number));
    }
    let receipts: Vec<TransactionReceipt> = read(raw)?;
    let (mut envelopes, mut logs) = (Vec::with_capacity(receipts.len()), Vec::new());
    for receipt in receipts {
        let tx = receipt.transaction_hash;
        let receipt = receipt.into_primitives_receipt().inner;
        for log in receipt.logs() {
            logs.push(Log {
                address: log.address,
                topics: log.topics().to_vec(),
                data: log.data.data.clone(),
                block_hash: block.hash,
                block_number: number,
                transaction_hash: tx,
                // The header orders them, whatever the node says.
                log_index: logs.len() as u64,
            });
        }
        envelopes.push(receipt);
    }
    if calculate_receipt_root(&envelopes) != block.header.receipts_root {
        return Err(NodeError::Receipts(number));
    }
    Ok(logs)
}

fn read<'a, T: Deserialize<'a>>(raw: &'a RawValue) -> Result<T, NodeError> {
    serde_json::from_str(raw.get()).map_err(NodeError::Format)
}

fn hex(number: u64) -> String {
    format!("{number:#x}")
}
