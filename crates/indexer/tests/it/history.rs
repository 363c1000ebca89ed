//! A history: publishers, providers, keepers and watchers who do what comes to their minds, on a chain that changes its
//! own.

use alloy::{
    primitives::{Address, B256, Bytes, U256, keccak256},
    signers::{SignerSync as _, local::PrivateKeySigner},
    sol_types::{SolCall, SolValue as _},
};
use chain::{
    Chain,
    abi::{
        Auction, Erc20, IAuction, ILeases, IRegistry, Leases, Payments, Registry, Sla, Staking,
        apps::{self, Apps, IApps},
    },
};
use protocol::quote::Quote;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};
use serde_json::{Value, json};

use super::anvil::{Anvil, key};

/// How many people there are: enough for a committee of watchers.
const PEOPLE: u8 = 9;

/// The most leases, orders and apps that are looked at before something is done to them.
const RECENT: u64 = 10;

pub(crate) struct History<'a> {
    anvil: &'a Anvil,
    chain: Chain,
    people: Vec<PrivateKeySigner>,
    orders: Vec<IAuction::Order>,
    rng: StdRng,
    highest: u64,
}

/// What somebody wants to send.
struct Wish {
    by: usize,
    to: Address,
    data: Vec<u8>,
}

fn wish(by: usize, to: Address, call: &impl SolCall) -> Wish {
    Wish { by, to, data: call.abi_encode() }
}

/// What is on the chain when a block begins.
struct Scene {
    versions: Vec<u64>,
    leases: Vec<(u64, ILeases::LeaseView)>,
    orders: Vec<(u64, IAuction::OrderView)>,
    apps: Vec<(u64, IApps::App)>,
    challenges: Vec<bool>,
    time: u64,
}

impl<'a> History<'a> {
    pub(crate) async fn begin(anvil: &'a Anvil, seed: u64) -> anyhow::Result<Self> {
        let chain = Chain::connect(&anvil.url, anvil.deployment.clone()).await?;
        let people: Vec<PrivateKeySigner> = (1..=PEOPLE).map(key).collect();
        let rng = StdRng::seed_from_u64(seed);
        let mut history = Self { anvil, chain, people, orders: Vec::new(), rng, highest: 0 };
        history.settle_in().await?;
        Ok(history)
    }

    /// Everybody gets money, gives the contracts their allowances, bonds, and lists itself.
    async fn settle_in(&mut self) -> anyhow::Result<()> {
        let d = self.anvil.deployment.clone();
        let coins: Vec<_> = self
            .people
            .iter()
            .map(|who| ("anvil_setBalance", json!([who.address(), "0xffffffffffffffffffff"])))
            .collect();
        self.anvil.batch(&coins).await?;
        let most = U256::from(u128::MAX >> 8);
        let mut wishes = Vec::new();
        for by in 0..self.people.len() {
            let who = self.people[by].address();
            wishes.push(wish(by, d.token, &Erc20::mintCall { to: who, amount: most }));
            for spender in [d.payments, d.staking, d.sla, d.auction] {
                wishes.push(wish(by, d.token, &Erc20::approveCall { spender, amount: most }));
            }
            let amount = U256::from(100_000_000);
            wishes.push(wish(by, d.staking, &Staking::bondCall { bonder: who, amount }));
            for locker in [d.leases, d.sla, d.auction, self.people[0].address()] {
                let call = Staking::setLockerCall { locker, allowed: true };
                wishes.push(wish(by, d.staking, &call));
            }
            let call = Leases::setIssuerCall { issuer: d.auction, allowed: true };
            wishes.push(wish(by, d.leases, &call));
            wishes.push(wish(by, d.registry, &Registry::listCall { listing: self.listing() }));
            wishes.push(wish(by, d.sla, &Sla::joinCall {}));
            let amount = U256::from(2_000_000);
            let call = Payments::depositCall { owner: who, salt: B256::ZERO, amount };
            wishes.push(wish(by, d.payments, &call));
            let account = self.account(by, 0);
            for operator in [d.leases, d.apps, self.people[0].address()] {
                wishes.push(wish(
                    by,
                    d.payments,
                    &Payments::approveCall {
                        id: account,
                        operator,
                        rateLimit: u128::MAX >> 8,
                        payLimit: 1_000_000_000_000_000,
                        maxLock: 1_000_000,
                        expiry: "1099511627775".parse().unwrap(),
                    },
                ));
            }
            for agent in [d.auction, d.apps] {
                wishes.push(wish(
                    by,
                    d.leases,
                    &Leases::setAgentCall { account, agent, allowed: true },
                ));
            }
        }
        self.send(wishes).await?;
        self.mine(1).await
    }

    fn account(&self, by: usize, salt: u8) -> B256 {
        chain::account_id(self.people[by].address(), salt_of(salt))
    }

    fn somebody(&mut self) -> usize {
        self.rng.random_range(0..self.people.len())
    }

    fn listing(&mut self) -> IRegistry::Listing {
        // What a contract takes for text need not be what a database takes.
        let endpoints =
            ["https://a.example:8443", "\\x00", "nul\0here", "ünï \"quoted\" \u{1}", "a,b\tc\n"];
        IRegistry::Listing {
            endpoint: (*endpoints.choose(&mut self.rng).unwrap()).to_owned(),
            region: (*["eu-west", "us", "\0"].choose(&mut self.rng).unwrap()).to_owned(),
            prices: IRegistry::Prices {
                cpu: self.rng.random_range(0..1_000_000),
                memoryMiB: u128::MAX - self.rng.random_range(0..5),
                storageMiB: self.rng.random(),
            },
            tlsKey: B256::repeat_byte(1),
            sealKey: B256::repeat_byte(2),
            measurement: B256::repeat_byte(self.rng.random_range(0..2)),
        }
    }

    async fn look(&self) -> anyhow::Result<Scene> {
        let chain = &self.chain;
        let (leases, auction, all_apps) = (chain.leases(), chain.auction(), chain.apps());
        let mut versions = Vec::new();
        for who in &self.people {
            versions.push(chain.registry().versionOf(who.address()).call().await?);
        }
        let last = |count: u64| (count.saturating_sub(RECENT) + 1)..=count;
        let ids: Vec<u64> = last(leases.count().call().await?).collect();
        let views = chain.lease_views(&ids, None).await?;
        let mut challenges = Vec::new();
        for id in &ids {
            let challenge = chain.sla().challengeOf(*id).call().await?;
            challenges.push(!challenge.challenger.is_zero());
        }
        let mut orders = Vec::new();
        for id in last(auction.count().call().await?) {
            orders.push((id, auction.orderOf(id).call().await?));
        }
        let mut kept = Vec::new();
        for id in last(all_apps.count().call().await?) {
            kept.push((id, all_apps.appOf(id).call().await?));
        }
        let time = chain.head().await?.timestamp;
        Ok(Scene {
            versions,
            leases: ids.into_iter().zip(views).collect(),
            orders,
            apps: kept,
            challenges,
            time,
        })
    }

    /// Makes some blocks, in which some things are done.
    pub(crate) async fn go_on(&mut self, blocks: u32) -> anyhow::Result<()> {
        for _ in 0..blocks {
            // Most blocks on most chains hold nothing of interest.
            if self.rng.random_bool(0.2) {
                self.mine(1).await?;
                continue;
            }
            let scene = self.look().await?;
            let count = self.rng.random_range(1..25);
            let wishes = (0..count).map(|_| self.think(&scene)).collect();
            self.send(wishes).await?;
            let wait = if self.rng.random_bool(0.1) { 100 } else { 15 };
            self.anvil.rpc("evm_increaseTime", json!([self.rng.random_range(1..wait)])).await?;
            self.mine(1).await?;
        }
        Ok(())
    }

    /// Another history from `depth` blocks ago on, which may become shorter or longer.
    pub(crate) async fn reorganise(&mut self, depth: u64) -> anyhow::Result<()> {
        self.highest = self.highest.max(self.anvil.head().await?.0);
        match self.rng.random_range(0..3) {
            // The same number of blocks, with nothing in them.
            0 => {
                self.anvil.rpc("anvil_reorg", json!([depth, []])).await?;
            }
            // The same things are done, one second later.
            1 => {
                let (head, _) = self.anvil.head().await?;
                let mut blocks = Vec::new();
                for number in (head - depth + 1)..=head {
                    let block = json!([format!("{number:#x}"), true]);
                    blocks.push(self.anvil.rpc("eth_getBlockByNumber", block).await?);
                }
                self.anvil.rpc("anvil_rollback", json!([depth])).await?;
                for block in blocks {
                    self.again(&block).await?;
                }
            }
            // Other things are done.
            _ => {
                self.anvil.rpc("anvil_rollback", json!([depth])).await?;
                let blocks = self.rng.random_range(1..=u32::try_from(depth).unwrap() + 2);
                self.go_on(blocks).await?;
            }
        }
        Ok(())
    }

    /// Makes a block of the transactions of another.
    async fn again(&mut self, block: &Value) -> anyhow::Result<()> {
        let sent: Vec<_> = block["transactions"]
            .as_array()
            .unwrap()
            .iter()
            .map(|tx| {
                let call = json!([{
                    "from": tx["from"], "to": tx["to"], "data": tx["input"], "gas": tx["gas"], "nonce": tx["nonce"],
                }]);
                ("eth_sendTransaction", call)
            })
            .collect();
        self.anvil.batch(&sent).await?;
        self.anvil.rpc("evm_increaseTime", json!([1])).await?;
        self.mine(1).await
    }

    /// Goes on until the chain is longer than it ever was: what was final once is then final for whoever comes later, too.
    pub(crate) async fn outgrow(&mut self) -> anyhow::Result<()> {
        self.go_on(1).await?;
        let head = self.anvil.head().await?.0;
        if head <= self.highest {
            self.mine(self.highest - head + 1).await?;
        }
        Ok(())
    }

    pub(crate) async fn mine(&mut self, blocks: u64) -> anyhow::Result<()> {
        self.anvil.rpc("anvil_mine", json!([format!("{blocks:#x}")])).await.map(|_mined| ())
    }

    async fn send(&mut self, wishes: Vec<Wish>) -> anyhow::Result<()> {
        let counts: Vec<_> = self
            .people
            .iter()
            .map(|who| ("eth_getTransactionCount", json!([who.address(), "latest"])))
            .collect();
        let counts = self.anvil.batch(&counts).await?;
        let mut nonces: Vec<u64> = counts
            .iter()
            .map(|count| u64::from_str_radix(&count.as_str().unwrap()[2..], 16).unwrap())
            .collect();
        let mut calls = Vec::new();
        for Wish { by, to, data } in wishes {
            let nonce = nonces[by];
            nonces[by] += 1;
            calls.push((
                "eth_sendTransaction",
                json!([{
                    "from": self.people[by].address(),
                    "to": to,
                    "data": Bytes::from(data),
                    "gas": "0x1e8480",
                    "nonce": format!("{nonce:#x}"),
                }]),
            ));
        }
        self.anvil.batch(&calls).await.map(|_sent| ())
    }

    /// What comes to somebody's mind.
    fn think(&mut self, scene: &Scene) -> Wish {
        match self.rng.random_range(0..100) {
            0..25 => self.about_money(scene),
            25..40 => self.about_bonds(),
            40..45 => self.about_listings(scene),
            45..75 => self.about_leases(scene),
            75..85 => self.about_orders(scene),
            85..92 => self.about_outages(scene),
            _ => self.about_apps(scene),
        }
    }

    fn about_money(&mut self, scene: &Scene) -> Wish {
        let to = self.anvil.deployment.payments;
        let (by, salt) = (self.somebody(), self.rng.random_range(0..2));
        let account = self.account(by, salt);
        let operator = self.people[0].address();
        let (reference, other) = (self.rng.random_range(1..12_u64), self.somebody());
        let mine = stream_of(self.people[by].address(), reference);
        let (rate, lock) = (self.rng.random_range(0..20_000_000_000), self.rng.random_range(0..20));
        let amount = U256::from(self.rng.random_range(1..3_000_u64));
        match self.rng.random_range(0..10) {
            0 | 1 => {
                let owner = self.people[other].address();
                wish(by, to, &Payments::depositCall { owner, salt: salt_of(salt), amount })
            }
            2 => wish(by, to, &Payments::withdrawCall { id: account, to: operator, amount }),
            3 | 4 => {
                let payee = self.people[other].address();
                let start = self.rng.random();
                let r#ref = alloy::primitives::Uint::from(reference);
                let account = if self.rng.random() { account } else { self.account(other, 0) };
                wish(
                    by,
                    to,
                    &Payments::openStreamCall { id: account, r#ref, payee, rate, lock, start },
                )
            }
            5 => wish(by, to, &Payments::startStreamCall { id: mine }),
            6 => wish(by, to, &Payments::setRateCall { id: mine, rate, lock }),
            7 => wish(by, to, &Payments::closeStreamCall { id: mine }),
            8 => {
                let to_whom = self.people[other].address();
                let account = self.account(other, 0);
                wish(0, to, &Payments::payCall { id: account, to: to_whom, amount })
            }
            _ => {
                let leases =
                    scene.leases.iter().map(|(id, _)| stream_of(self.anvil.deployment.leases, *id));
                let ids: Vec<U256> = leases.collect();
                let count = self.rng.random_range(0..=ids.len());
                let ids = ids.choose_multiple(&mut self.rng, count).copied();
                wish(by, to, &Payments::collectCall { ids: ids.collect() })
            }
        }
    }

    fn about_bonds(&mut self) -> Wish {
        let to = self.anvil.deployment.staking;
        let (by, other) = (self.somebody(), self.rng.random_range(0..2_usize));
        let bonder = self.people[other].address();
        let locker = self.people[0].address();
        let number = self.rng.random_range(1..4_u64);
        let r#ref = alloy::primitives::Uint::from(number);
        let small = self.rng.random_range(1..500);
        let soon: u64 = 1_900_000_000;
        match self.rng.random_range(0..13) {
            0 => wish(by, to, &Staking::bondCall { bonder, amount: U256::from(small) }),
            1 => wish(by, to, &Staking::requestUnbondCall { amount: U256::from(small) }),
            2 => wish(by, to, &Staking::cancelUnbondCall {}),
            3 => wish(by, to, &Staking::withdrawCall { to: bonder }),
            4 | 5 => wish(0, to, &Staking::lockCall { bonder, r#ref, amount: small }),
            6 => wish(0, to, &Staking::lowerCall { bonder, r#ref, amount: small / 2 }),
            7 => {
                let release = if self.rng.random() { 0 } else { soon };
                let release_at = alloy::primitives::Uint::from(release);
                wish(0, to, &Staking::releaseCall { bonder, r#ref, releaseAt: release_at })
            }
            8 => wish(by, to, &Staking::unlockCall { bonder, locker, r#ref }),
            9 | 10 => {
                let beneficiary = self.people[by].address();
                let reward = small / 20;
                let rewarded = beneficiary;
                let call = Staking::slashCall {
                    bonder,
                    r#ref,
                    amount: small,
                    beneficiary,
                    rewarded,
                    reward,
                };
                wish(0, to, &call)
            }
            11 => wish(by, to, &Staking::claimCall { to: bonder }),
            _ => {
                let allowed = self.rng.random_bool(0.8);
                wish(by, to, &Staking::setLockerCall { locker, allowed })
            }
        }
    }

    fn about_listings(&mut self, scene: &Scene) -> Wish {
        let to = self.anvil.deployment.registry;
        let (by, other) = (self.somebody(), self.somebody());
        let listed = scene.versions[by] != 0;
        match self.rng.random_range(0..8) {
            0 if listed => wish(by, to, &Registry::delistCall {}),
            1 | 2 => wish(by, to, &Registry::listCall { listing: self.listing() }),
            3 => {
                let expiry =
                    alloy::primitives::Uint::from(self.rng.random_range(0..2_u64) * 2_000_000_000);
                let provider = self.people[other].address();
                wish(by, to, &Registry::vouchCall { provider, attribute: keccak256("tdx"), expiry })
            }
            _ if listed => wish(by, to, &Registry::heartbeatCall {}),
            _ => wish(by, to, &Registry::listCall { listing: self.listing() }),
        }
    }

    fn quote(
        &mut self,
        scene: &Scene,
        provider: usize,
        account: B256,
        lease: u64,
    ) -> (Quote, Bytes) {
        let quote = Quote {
            provider: self.people[provider].address(),
            account: if self.rng.random() { account } else { B256::ZERO },
            lease,
            pod: keccak256("pod"),
            rate: self.rng.random_range(1..8_000_000_000),
            lock: self.rng.random_range(1..20),
            coverage: self.rng.random_range(0..2_000),
            grace: "2".parse().unwrap(),
            full: "30".parse().unwrap(),
            response: "20".parse().unwrap(),
            notice: "10".parse().unwrap(),
            startWithin: "40".parse().unwrap(),
            expiry: "1099511627775".parse().unwrap(),
            version: scene.versions[provider],
            nonce: U256::from(self.rng.random::<u128>()),
        };
        let d = &self.anvil.deployment;
        let digest = quote.digest(d.chain_id, d.leases);
        let signature = self.people[provider].sign_hash_sync(&digest).unwrap();
        (quote, signature.as_bytes().into())
    }

    fn about_leases(&mut self, scene: &Scene) -> Wish {
        let to = self.anvil.deployment.leases;
        let open: Vec<_> = scene
            .leases
            .iter()
            .filter(|(_, view)| view.lease.state != 3 && view.lease.state != 0)
            .cloned()
            .collect();
        let some = open.choose(&mut self.rng).cloned();
        let (Some((id, view)), true) = (some, self.rng.random_bool(0.7)) else {
            let (by, provider) = (self.somebody(), self.somebody());
            let account = self.account(by, 0);
            return match self.rng.random_range(0..12) {
                0 => {
                    let mask = U256::from(self.rng.random::<u8>());
                    let word = U256::from(self.rng.random_range(0..3_u8));
                    wish(by, to, &Leases::cancelNoncesCall { word, mask })
                }
                1 => {
                    let agent = self.people[provider].address();
                    let allowed = self.rng.random();
                    wish(by, to, &Leases::setAgentCall { account, agent, allowed })
                }
                2 => {
                    let issuer = self.people[provider].address();
                    let allowed = self.rng.random();
                    wish(by, to, &Leases::setIssuerCall { issuer, allowed })
                }
                _ => {
                    let slot = self.rng.random_range(0..4);
                    let (quote, signature) = self.quote(scene, provider, account, 0);
                    wish(
                        by,
                        to,
                        &Leases::openCall { quote: quote.into(), signature, account, slot },
                    )
                }
            };
        };
        let of = |who: Address, people: &[PrivateKeySigner]| {
            people.iter().position(|key| key.address() == who).unwrap_or(0)
        };
        let (provider, payer) = (of(view.provider, &self.people), of(view.payer, &self.people));
        let pending = view.lease.state == 1;
        match self.rng.random_range(0..12) {
            0..6 if pending => wish(provider, to, &Leases::activateCall { id }),
            0 => {
                wish(payer, to, &Leases::closeCall { id, reason: 1 + self.rng.random_range(0..3) })
            }
            1 => wish(provider, to, &Leases::closeCall { id, reason: 4 }),
            2 => wish(provider, to, &Leases::giveNoticeCall { id, reason: 5 }),
            3 | 4 => {
                let (quote, signature) = self.quote(scene, provider, view.account, id);
                wish(payer, to, &Leases::amendCall { id, quote: quote.into(), signature })
            }
            5 => {
                let payments = self.anvil.deployment.payments;
                let id = stream_of(to, id);
                wish(payer, payments, &Payments::closeStreamCall { id })
            }
            _ => wish(payer, to, &Leases::closeCall { id, reason: self.rng.random_range(11..14) }),
        }
    }

    fn about_orders(&mut self, scene: &Scene) -> Wish {
        let to = self.anvil.deployment.auction;
        let by = self.somebody();
        let some = scene.orders.choose(&mut self.rng).cloned();
        let (Some((id, view)), true) = (some, self.rng.random_bool(0.8)) else {
            let order = IAuction::Order {
                account: self.account(by, 0),
                slot: 10_u32 + self.rng.random_range(0..5),
                pod: keccak256("pod"),
                cpu: 500,
                memoryMiB: u64::MAX - 1,
                storageMiB: 10,
                maxRate: self.rng.random_range(1_000..8_000_000_000),
                coverage: self.rng.random_range(0..3_000),
                lock: 5,
                grace: "2".parse().unwrap(),
                full: "30".parse().unwrap(),
                response: "20".parse().unwrap(),
                notice: "10".parse().unwrap(),
                startWithin: "30".parse().unwrap(),
                duration: 60,
                selfAward: self.rng.random(),
                requirements: Vec::new(),
                uri: "ipfs:\0\"pod\"".into(),
            };
            self.orders.push(order.clone());
            return wish(by, to, &Auction::placeCall { order });
        };
        let order = self.orders.iter().find(|order| keccak256(order.abi_encode()) == view.hash);
        let Some(order) = order.cloned() else { return wish(by, to, &Auction::expireCall { id }) };
        let payer = self.people.iter().position(|key| key.address() == view.payer).unwrap_or(0);
        match (view.state, self.rng.random_range(0..10)) {
            (2, _) => wish(by, to, &Auction::settleCall { id }),
            (1, 0) => wish(payer, to, &Auction::cancelCall { id }),
            (1, 1) => wish(by, to, &Auction::disqualifyCall { id }),
            (1, 2) => wish(by, to, &Auction::expireCall { id }),
            (1, 3..7) if !view.leader.is_zero() => {
                wish(payer, to, &Auction::awardCall { id, order })
            }
            (1, _) => {
                let rate = view.rate - view.rate / 50;
                wish(by, to, &Auction::bidCall { id, rate, requirements: Vec::new() })
            }
            _ => wish(payer, to, &Auction::claimCall { to: self.people[by].address() }),
        }
    }

    fn about_outages(&mut self, scene: &Scene) -> Wish {
        let to = self.anvil.deployment.sla;
        let by = self.somebody();
        let active: Vec<usize> = (0..scene.leases.len())
            .filter(|place| scene.leases[*place].1.lease.state >= 2)
            .collect();
        let Some(place) = active.choose(&mut self.rng).copied() else {
            return wish(by, to, &Sla::joinCall {});
        };
        let (lease, view) = &scene.leases[place];
        let who = |address: Address| {
            self.people.iter().position(|key| key.address() == address).unwrap_or(0)
        };
        let (lease, payer, provider) = (*lease, who(view.payer), who(view.provider));
        let challenged = scene.challenges[place];
        match self.rng.random_range(0..12) {
            0..4 if !challenged => wish(payer, to, &Sla::challengeCall { id: lease }),
            0..2 => wish(provider, to, &Sla::answerCall { id: lease }),
            2..4 => wish(by, to, &Sla::resolveCall { id: lease }),
            4 => wish(by, to, &Sla::joinCall {}),
            5 => wish(by, to, &Sla::leaveCall {}),
            6 | 7 => wish(by, to, &Sla::openEpochCall {}),
            8 => wish(by, to, &Sla::claimCall { to: self.people[0].address() }),
            9 => self.equivocate(lease, by),
            _ => self.report(scene, lease, by),
        }
    }

    fn sign(&self, watcher: usize, lease: u64, (from, to): (u64, u64), up: bool) -> Bytes {
        let d = &self.anvil.deployment;
        let domain = alloy::sol_types::eip712_domain! {
            name: "Roadstead Sla",
            version: "1",
            chain_id: d.chain_id,
            verifying_contract: d.sla,
        };
        let kind = keccak256("Statement(uint64 lease,uint40 from,uint40 to,bool up)");
        let said = (kind, U256::from(lease), U256::from(from), U256::from(to), up).abi_encode();
        let hash = keccak256(
            [b"\x19\x01".as_slice(), domain.separator().as_slice(), keccak256(said).as_slice()]
                .concat(),
        );
        self.people[watcher].sign_hash_sync(&hash).unwrap().as_bytes().into()
    }

    fn equivocate(&mut self, lease: u64, by: usize) -> Wish {
        let watcher = self.somebody();
        let said = |up| chain::abi::ISla::Statement {
            lease,
            from: "5".parse().unwrap(),
            to: "9".parse().unwrap(),
            up,
        };
        let call = Sla::equivocatedCall {
            watcher: self.people[watcher].address(),
            up: said(true),
            upSignature: self.sign(watcher, lease, (5, 9), true),
            down: said(false),
            downSignature: self.sign(watcher, lease, (5, 9), false),
        };
        wish(by, self.anvil.deployment.sla, &call)
    }

    /// Reports that a lease was away for the last seconds, signed by whoever the committee may be: everybody signs, and
    /// the members are guessed.
    fn report(&mut self, scene: &Scene, lease: u64, by: usize) -> Wish {
        let (from, to) = (scene.time.saturating_sub(self.rng.random_range(1..12)), scene.time);
        let committee = self.committee(lease, from / 60);
        let (mut members, mut signatures) = (Vec::new(), Vec::new());
        for (member, watcher) in (0_u8..).zip(committee) {
            members.push(member);
            signatures.push(self.sign(watcher, lease, (from, to), false));
        }
        let call = Sla::reportCall {
            id: lease,
            from: alloy::primitives::Uint::from(from),
            to: alloy::primitives::Uint::from(to),
            members,
            signatures,
        };
        wish(by, self.anvil.deployment.sla, &call)
    }

    /// Who looks after a lease, as the contract draws it; it is asked beforehand.
    fn committee(&self, lease: u64, epoch: u64) -> Vec<usize> {
        let call = self
            .chain
            .sla()
            .committee(lease, alloy::primitives::Uint::from(epoch))
            .calldata()
            .clone();
        // The question is asked without waiting, so that wishes are made by plain functions.
        let asked = std::thread::scope(|scope| {
            scope.spawn(|| self.ask(self.anvil.deployment.sla, &call)).join().unwrap()
        });
        let drawn = Vec::<Address>::abi_decode(&asked).unwrap_or_default();
        drawn
            .iter()
            .map(|watcher| {
                self.people.iter().position(|key| key.address() == *watcher).unwrap_or(0)
            })
            .collect()
    }

    fn ask(&self, to: Address, data: &Bytes) -> Bytes {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let asked = json!([{ "to": to, "data": data }, "latest"]);
        // A client of its own: connections belong to the runtime that made them.
        let body = json!({ "jsonrpc": "2.0", "id": 0, "method": "eth_call", "params": asked });
        let answer: Value = runtime.block_on(async {
            let http = reqwest::Client::new();
            http.post(&self.anvil.url).json(&body).send().await.unwrap().json().await.unwrap()
        });
        serde_json::from_value(answer["result"].clone()).unwrap_or_default()
    }

    fn about_apps(&mut self, scene: &Scene) -> Wish {
        let to = self.anvil.deployment.apps;
        let by = self.somebody();
        let limits = |rng: &mut StdRng| IApps::Limits {
            replicas: rng.random_range(1..4),
            maxLock: 100,
            maxRate: 10_000_000_000,
            pods: keccak256("pod"),
        };
        let some = scene.apps.choose(&mut self.rng).cloned();
        let (Some((id, app)), true) = (some, self.rng.random_bool(0.7)) else {
            let names = ["guestbook", "shop", "a", "x-1"];
            let app = IApps::Registration {
                account: self.account(by, 0),
                slot: "20".parse().unwrap(),
                name: (*names.choose(&mut self.rng).unwrap()).to_owned(),
                spec: keccak256("spec"),
                uri: "https://spec\0".into(),
                keeper: self.people[self.rng.random_range(0..2)].address(),
                fee: self.rng.random_range(0..2) * 1_000,
                limits: limits(&mut self.rng),
            };
            return wish(by, to, &Apps::registerCall { r: app });
        };
        let who = |address: Address| {
            self.people.iter().position(|key| key.address() == address).unwrap_or(0)
        };
        let (owner, keeper) = (who(app.owner), who(app.keeper));
        match self.rng.random_range(0..9) {
            0 => wish(
                owner,
                to,
                &Apps::setSpecCall {
                    id,
                    spec: keccak256([self.rng.random::<u8>()]),
                    uri: "\\\"".into(),
                },
            ),
            1 => wish(owner, to, &Apps::setLimitsCall { id, limits: limits(&mut self.rng) }),
            2 => {
                let keeper = self.people[by].address();
                wish(owner, to, &Apps::setKeeperCall { id, keeper, fee: 2_000 })
            }
            3 => wish(owner, to, &Apps::retireCall { id }),
            _ => {
                let provider = self.somebody();
                let (quote, signature) = self.quote(scene, provider, app.account, 0);
                let quote: ILeases::Quote = quote.into();
                wish(
                    keeper,
                    to,
                    &Apps::deployCall {
                        id,
                        replica: self.rng.random_range(0..3),
                        quote: same(&quote),
                        signature,
                        proof: Vec::new(),
                    },
                )
            }
        }
    }
}

/// A quote as Apps' own bindings have it.
fn same(q: &ILeases::Quote) -> apps::ILeases::Quote {
    apps::ILeases::Quote {
        provider: q.provider,
        account: q.account,
        lease: q.lease,
        pod: q.pod,
        rate: q.rate,
        lock: q.lock,
        coverage: q.coverage,
        grace: q.grace,
        full: q.full,
        response: q.response,
        notice: q.notice,
        startWithin: q.startWithin,
        expiry: q.expiry,
        version: q.version,
        nonce: q.nonce,
    }
}

fn salt_of(salt: u8) -> B256 {
    B256::with_last_byte(salt)
}

fn stream_of(operator: Address, number: u64) -> U256 {
    (U256::from_be_slice(operator.as_slice()) << 96) | U256::from(number)
}
