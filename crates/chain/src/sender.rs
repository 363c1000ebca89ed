//! Sending transactions with one key: one nonce after the other, fees raised until they are mined.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use alloy::{
    consensus::BlockHeader,
    eips::{BlockNumberOrTag, Encodable2718},
    network::{EthereumWallet, NetworkTransactionBuilder, TransactionBuilder},
    primitives::{Address, B256, Bytes},
    providers::Provider,
    rpc::types::{TransactionReceipt, TransactionRequest},
    signers::local::PrivateKeySigner,
    sol_types::SolCall,
    transports::{RpcError, TransportErrorKind},
};
use tokio::{sync::Mutex, time::Instant};

use crate::{Chain, Revert};

/// How often a receipt is asked for.
const POLL: Duration = Duration::from_millis(100);

/// After how long a transaction that was not mined is sent again with higher fees.
const PATIENCE: Duration = Duration::from_secs(20);

/// How often a transaction is sent again.
const REPLACEMENTS: u32 = 5;

/// A transaction that did not do what it was for.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The contract refuses it; nothing was sent.
    #[error("{0}")]
    Refused(Box<Revert>),
    /// It was mined and reverted.
    #[error("transaction {0} was mined and reverted: {1}")]
    Reverted(B256, Box<Revert>),
    /// It was not mined although its fee was raised.
    #[error("transaction {0} was not mined although its fee was raised {REPLACEMENTS} times")]
    Stuck(B256),
    /// The sender has no coins for the fee.
    #[error("{0} has not enough coins to pay for the transaction's gas")]
    NoGas(Address),
    /// The node did not answer, or refused for a reason of its own.
    #[error("the node did not take the transaction")]
    Rpc(#[source] RpcError<TransportErrorKind>),
    /// The key could not sign.
    #[error("the transaction could not be signed")]
    Sign(#[source] alloy::network::TransactionBuilderError<alloy::network::Ethereum>),
}

/// One key that sends. Clones share the nonce; two senders of one key in one process do not, so make one.
#[derive(Debug, Clone)]
pub struct Sender {
    chain: Chain,
    wallet: EthereumWallet,
    signer: PrivateKeySigner,
    nonce: Arc<Mutex<u64>>,
    under_way: Arc<AtomicUsize>,
}

/// A transaction between being counted and being mined, given up or dropped.
#[derive(Debug)]
struct UnderWay<'a>(&'a AtomicUsize);

impl<'a> UnderWay<'a> {
    fn begin(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Sender {
    /// A sender on `chain` with `signer`.
    pub fn new(chain: Chain, signer: PrivateKeySigner) -> Self {
        let wallet = EthereumWallet::from(signer.clone());
        Self { chain, wallet, signer, nonce: Arc::default(), under_way: Arc::default() }
    }

    /// Who sends.
    pub fn address(&self) -> Address {
        self.signer.address()
    }

    /// The key.
    pub fn signer(&self) -> &PrivateKeySigner {
        &self.signer
    }

    /// The chain that it sends to.
    pub fn chain(&self) -> &Chain {
        &self.chain
    }

    /// Sends `call` to `to` and waits until it is mined.
    ///
    /// # Errors
    /// When the contract refuses it (found out beforehand, where nothing was sent yet), when it reverts, or when it
    /// is not mined.
    pub async fn send<C: SolCall>(
        &self,
        to: Address,
        call: &C,
    ) -> Result<TransactionReceipt, SendError> {
        self.send_bytes(to, call.abi_encode().into()).await
    }

    async fn send_bytes(&self, to: Address, input: Bytes) -> Result<TransactionReceipt, SendError> {
        let node = self.chain.provider();
        let from = self.address();
        let request = TransactionRequest::default().from(from).to(to).input(input.into());
        let gas = node.estimate_gas(request.clone()).await.map_err(|err| self.refusal(err))?;
        let fees = node.estimate_eip1559_fees().await.map_err(SendError::Rpc)?;
        let mut request = request
            // Storage that others touch in between may cost a little more than estimated.
            .gas_limit(gas.saturating_add(gas / 4))
            .max_fee_per_gas(fees.max_fee_per_gas)
            .max_priority_fee_per_gas(fees.max_priority_fee_per_gas);
        request.set_chain_id(self.chain.id());

        let mut hashes = Vec::new();
        let _under_way = UnderWay::begin(&self.under_way);
        {
            let mut next = self.nonce.lock().await;
            let pending = node.get_transaction_count(from).pending().await;
            // With nothing else under way the chain alone counts: a reorganisation may have taken back what was mined.
            let known = if self.under_way.load(Ordering::Relaxed) > 1 { *next } else { 0 };
            let nonce = pending.map_err(SendError::Rpc)?.max(known);
            request.set_nonce(nonce);
            hashes.push(self.broadcast(&request).await?);
            *next = nonce + 1;
        }
        for _ in 0..=REPLACEMENTS {
            if let Some(receipt) = self.mined(&hashes).await {
                return self.outcome(receipt, &request).await;
            }
            // Nodes take a replacement only for 10 % more, at both fees.
            let raise = |fee: Option<u128>| fee.map(|fee| fee + fee / 8 + 1);
            request.max_fee_per_gas = raise(request.max_fee_per_gas);
            request.max_priority_fee_per_gas = raise(request.max_priority_fee_per_gas);
            match self.broadcast(&request).await {
                Ok(hash) => hashes.push(hash),
                Err(err) => tracing::debug!(error = %err, "the replacement was not taken"),
            }
        }
        // Whatever lies behind this nonce waits for it: count anew from the chain the next time.
        *self.nonce.lock().await = 0;
        Err(SendError::Stuck(hashes.pop().unwrap_or_default()))
    }

    async fn broadcast(&self, request: &TransactionRequest) -> Result<B256, SendError> {
        let signed = request.clone().build(&self.wallet).await.map_err(SendError::Sign)?;
        let raw = signed.encoded_2718();
        let sent = self.chain.provider().send_raw_transaction(&raw).await;
        sent.map(|pending| *pending.tx_hash()).map_err(|err| self.refusal(err))
    }

    /// The receipt of whichever of `hashes` was mined, within the patience for one fee.
    async fn mined(&self, hashes: &[B256]) -> Option<TransactionReceipt> {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            for hash in hashes {
                // A node that does not answer says nothing about the transaction.
                if let Ok(Some(receipt)) =
                    self.chain.provider().get_transaction_receipt(*hash).await
                {
                    return Some(receipt);
                }
            }
            tokio::time::sleep(POLL).await;
        }
        None
    }

    async fn outcome(
        &self,
        receipt: TransactionReceipt,
        request: &TransactionRequest,
    ) -> Result<TransactionReceipt, SendError> {
        if receipt.status() {
            return Ok(receipt);
        }
        // The reason is not in the receipt: the same call on the same state gives it.
        let parent = receipt.block_number.unwrap_or_default().saturating_sub(1);
        let again = self.chain.provider().call(request.clone()).block(parent.into()).await;
        let revert = again.err().and_then(|err| Revert::of(&err)).unwrap_or_default();
        Err(SendError::Reverted(receipt.transaction_hash, Box::new(revert)))
    }

    fn refusal(&self, err: RpcError<TransportErrorKind>) -> SendError {
        if let Some(revert) = Revert::of(&err) {
            return SendError::Refused(Box::new(revert));
        }
        // Nodes have no code of their own for this one (geth, anvil and reth all say it in words).
        let poor = err.as_error_resp().is_some_and(|resp| {
            let message = resp.message.to_lowercase();
            message.contains("insufficient funds")
        });
        if poor { SendError::NoGas(self.address()) } else { SendError::Rpc(err) }
    }

    /// The time of the latest block, in Unix seconds: what contracts compare expiries with.
    ///
    /// # Errors
    /// When the node does not answer.
    pub async fn now(&self) -> Result<u64, SendError> {
        let block = self.chain.provider().get_block_by_number(BlockNumberOrTag::Latest).await;
        Ok(block.map_err(SendError::Rpc)?.map_or(0, |block| block.header.timestamp()))
    }
}
