//! People who mean what they do: providers with prices that somebody would ask for, a payer, orders and bids.

use alloy::{
    primitives::{Address, B256, U256},
    sol_types::SolCall,
};
use anyhow::{Context as _, ensure};
use chain::{
    Chain,
    abi::{Auction, Erc20, IAuction, IRegistry, Leases, Payments, Registry, Staking},
};
use serde_json::{Value, json};

use super::anvil::{Anvil, key};

/// The first of those who are here.
pub(super) const FIRST: u8 = 100;

/// How many providers there are.
const PROVIDERS: u8 = 6;

/// A whole token.
const ONE: u64 = 1_000_000;

pub(super) struct Scene<'a> {
    anvil: &'a Anvil,
    pub(super) chain: Chain,
}

pub(super) fn provider(number: u8) -> Address {
    key(FIRST + 1 + number).address()
}

pub(super) fn payer() -> Address {
    key(FIRST).address()
}

pub(super) fn account() -> B256 {
    chain::account_id(payer(), B256::ZERO)
}

impl<'a> Scene<'a> {
    /// Providers list themselves, with something at stake; a payer has money, in its pocket and in its account.
    pub(super) async fn begin(anvil: &'a Anvil) -> anyhow::Result<Self> {
        let chain = Chain::connect(&anvil.url, anvil.deployment.clone()).await?;
        let scene = Self { anvil, chain };
        let d = anvil.deployment.clone();
        let mint = |to, tokens: u64| Erc20::mintCall { to, amount: U256::from(tokens * ONE) };
        for number in 0..PROVIDERS {
            let who = provider(number);
            scene.endow(who).await?;
            scene.act(who, d.token, &mint(who, 1_000)).await?;
            let call = Erc20::approveCall { spender: d.staking, amount: U256::MAX };
            scene.act(who, d.token, &call).await?;
            let amount = U256::from(ONE * (100 + 90 * u64::from(number)));
            scene.act(who, d.staking, &Staking::bondCall { bonder: who, amount }).await?;
            for locker in [d.leases, d.auction] {
                let call = Staking::setLockerCall { locker, allowed: true };
                scene.act(who, d.staking, &call).await?;
            }
            let call = Leases::setIssuerCall { issuer: d.auction, allowed: true };
            scene.act(who, d.leases, &call).await?;
            for version in 0..1 + u128::from(number) % 4 {
                scene.list(number, 9 + version * 2).await?;
                scene.pass(4_000).await?;
            }
        }
        scene.endow(payer()).await?;
        scene.act(payer(), d.token, &mint(payer(), 500)).await?;
        Ok(scene)
    }

    async fn endow(&self, who: Address) -> anyhow::Result<()> {
        let params = json!([who, "0xffffffffffffffffffff"]);
        self.anvil.rpc("anvil_setBalance", params).await.map(drop)
    }

    /// Asks for so many thousandths of a token for a core and hour, and the rest in proportion.
    pub(super) async fn list(&self, number: u8, milli: u128) -> anyhow::Result<()> {
        let core = milli * u128::from(ONE) * 1_000_000_000 / 3_600 / 1_000 / 1_000;
        let prices = IRegistry::Prices { cpu: core, memoryMiB: core / 4, storageMiB: core / 200 };
        // One of them has something in mind.
        let regions =
            ["eu-west", "eu-north", "us-east", "ap-south", "eu-west", "<b>eu\u{202e}</b>"];
        let endpoint = match number {
            5 => "javascript:alert(1)//https://p5.example".to_owned(),
            _ => format!("https://p{number}.example:8443"),
        };
        let listing = IRegistry::Listing {
            endpoint,
            region: regions[usize::from(number)].to_owned(),
            prices,
            tlsKey: B256::repeat_byte(0xa0 + number),
            sealKey: B256::repeat_byte(0xb0 + number),
            measurement: B256::ZERO,
        };
        let call = Registry::listCall { listing };
        self.act(provider(number), self.anvil.deployment.registry, &call).await
    }

    /// Pays into the payer's account, and lets the auction open leases for it.
    pub(super) async fn fund(&self, tokens: u64) -> anyhow::Result<()> {
        let d = &self.anvil.deployment;
        for spender in [d.payments, d.auction] {
            let call = Erc20::approveCall { spender, amount: U256::MAX };
            self.act(payer(), d.token, &call).await?;
        }
        let amount = U256::from(tokens * ONE);
        let call = Payments::depositCall { owner: payer(), salt: B256::ZERO, amount };
        self.act(payer(), d.payments, &call).await?;
        let call = Payments::approveCall {
            id: account(),
            operator: d.leases,
            rateLimit: u128::MAX >> 8,
            payLimit: 0,
            maxLock: 1_000_000,
            expiry: "1099511627775".parse()?,
        };
        self.act(payer(), d.payments, &call).await?;
        let call = Leases::setAgentCall { account: account(), agent: d.auction, allowed: true };
        self.act(payer(), d.leases, &call).await
    }

    /// Places an order for a slot of the payer's account.
    pub(super) async fn place(&self, slot: u32) -> anyhow::Result<IAuction::Order> {
        let order = IAuction::Order {
            account: account(),
            slot,
            pod: B256::repeat_byte(0x77),
            cpu: 1_000,
            memoryMiB: 2_048,
            storageMiB: 10_240,
            // 0.05 tokens per hour.
            maxRate: 50 * u128::from(ONE) * 1_000_000_000 / 1_000 / 3_600,
            coverage: 5 * u128::from(ONE),
            lock: 3_600,
            grace: "300".parse()?,
            full: "7200".parse()?,
            response: "300".parse()?,
            notice: "86400".parse()?,
            startWithin: "600".parse()?,
            duration: 3_600,
            selfAward: true,
            requirements: Vec::new(),
            uri: "https://payer.example/pods/shop.json".to_owned(),
        };
        let call = Auction::placeCall { order: order.clone() };
        self.act(payer(), self.anvil.deployment.auction, &call).await?;
        Ok(order)
    }

    /// A bid of so many thousandths of what an order pays at most.
    pub(super) fn bidding(&self, number: u8, id: u64, milli: u128) -> Value {
        let most = 50 * u128::from(ONE) * 1_000_000_000 / 1_000 / 3_600;
        let call = Auction::bidCall { id, rate: most * milli / 1_000, requirements: Vec::new() };
        transaction(provider(number), self.anvil.deployment.auction, &call)
    }

    /// Makes such a bid.
    pub(super) async fn bid(&self, number: u8, id: u64, milli: u128) -> anyhow::Result<()> {
        self.send(self.bidding(number, id, milli)).await
    }

    /// The payer takes the best bid; returns the lease.
    pub(super) async fn award(&self, id: u64, order: IAuction::Order) -> anyhow::Result<u64> {
        let call = Auction::awardCall { id, order };
        self.act(payer(), self.anvil.deployment.auction, &call).await?;
        Ok(self.chain.auction().orderOf(id).call().await?.lease)
    }

    /// A provider's word that a lease's pod runs.
    pub(super) fn activating(&self, number: u8, id: u64) -> Value {
        transaction(provider(number), self.anvil.deployment.leases, &Leases::activateCall { id })
    }

    /// Says so.
    pub(super) async fn activate(&self, number: u8, id: u64) -> anyhow::Result<()> {
        self.send(self.activating(number, id)).await
    }

    /// Lets time pass.
    pub(super) async fn pass(&self, secs: u64) -> anyhow::Result<()> {
        self.anvil.rpc("evm_increaseTime", json!([secs])).await?;
        self.anvil.rpc("evm_mine", json!([])).await.map(drop)
    }

    /// Sends a call, and makes sure that it was taken.
    async fn act(&self, from: Address, to: Address, call: &impl SolCall) -> anyhow::Result<()> {
        self.send(transaction(from, to, call)).await
    }

    async fn send(&self, transaction: Value) -> anyhow::Result<()> {
        let hash = self.anvil.rpc("eth_sendTransaction", json!([transaction])).await?;
        self.anvil.rpc("evm_mine", json!([])).await?;
        let receipt = self.anvil.rpc("eth_getTransactionReceipt", json!([hash])).await?;
        let status = receipt["status"].as_str().context("it was not mined")?;
        ensure!(status == "0x1", "{transaction} was reverted");
        Ok(())
    }
}

fn transaction(from: Address, to: Address, call: &impl SolCall) -> Value {
    let data = alloy::hex::encode_prefixed(call.abi_encode());
    json!({ "from": from, "to": to, "data": data, "gas": "0x2dc6c0" })
}
