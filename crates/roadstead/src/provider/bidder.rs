//! `roadstead provider bidder`: decides what to bid for orders, and has the provider send it.
//!
//! It has no key, reads no chain and is trusted with nothing: the provider tells it of orders, and sends what it wants within
//! the operator's limits. It runs as an add-on, or for who wants it so as a process of its own.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use ::provider::wire::bids::{Decline, Intent, Obstacle, OpenOrder, OpenOrders, Reason};
use anyhow::{Context as _, bail, ensure};
use protocol::amount::Rate;
use reqwest::{StatusCode, Url};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use zeroize::Zeroizing;

/// How long the provider may take to answer: a bid has to be mined.
const PATIENCE: Duration = Duration::from_secs(180);

/// After how long the same facts are decided on again: limits and programs may have changed.
const AGAIN: Duration = Duration::from_secs(60);

/// What a program may answer at most, in bytes.
const MAX_ANSWER: u64 = 64 << 10;

/// How many basis points are all of something.
const ALL: u128 = 10_000;

/// Where to bid, and how.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Where the provider answers its add-ons
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9640")]
    provider: Url,
    /// The file with the add-on's token
    #[arg(long, value_name = "FILE")]
    token_file: PathBuf,
    /// What it bids: the file that `addon enable bidder --file` takes
    #[arg(long, value_name = "FILE")]
    file: PathBuf,
}

/// The bidder's configuration.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    /// How often orders are looked at, in milliseconds.
    #[serde(default = "poll")]
    poll_ms: u64,
    strategy: Strategy,
}

fn poll() -> u64 {
    2_000
}

/// What is bid.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
enum Strategy {
    /// The list price and so much of it more, once.
    FixedMargin { margin_bps: u32 },
    /// As much as the order takes, a step below whoever leads, down to so much of the list price.
    FloorAndStep { floor_bps: u32 },
    /// What a program says.
    Scripted {
        program: Vec<String>,
        #[serde(default = "timeout")]
        timeout_ms: u64,
    },
}

fn timeout() -> u64 {
    2_000
}

/// What a strategy says to an order.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict {
    Bid(Rate),
    Decline(Obstacle),
}

/// What a program answers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
enum Answer {
    /// In units per second.
    Bid(Rate),
    /// Why not.
    Decline(String),
}

fn no(reason: Reason, words: String) -> Verdict {
    Verdict::Decline(Obstacle { reason, words })
}

/// So many basis points of a rate, rounded up: the provider never asks for less than was meant.
fn share(rate: Rate, bps: u128) -> Rate {
    let (whole, rest) = (rate.0 / ALL, rate.0 % ALL);
    Rate(whole.saturating_mul(bps).saturating_add((rest.saturating_mul(bps)).div_ceil(ALL)))
}

impl Strategy {
    async fn decide(&self, order: &OpenOrder) -> Verdict {
        match self {
            Self::FixedMargin { margin_bps } => {
                fixed_margin(order, share(order.list_price, ALL + u128::from(*margin_bps)))
            }
            Self::FloorAndStep { floor_bps } => {
                floor_and_step(order, share(order.list_price, u128::from(*floor_bps)))
            }
            Self::Scripted { program, timeout_ms } => {
                match ask(program, Duration::from_millis(*timeout_ms), order).await {
                    Ok(Answer::Bid(rate)) => Verdict::Bid(rate),
                    Ok(Answer::Decline(words)) => no(Reason::Declined, words),
                    Err(err) => no(Reason::Program, format!("{err:#}")),
                }
            }
        }
    }
}

fn fixed_margin(order: &OpenOrder, price: Rate) -> Verdict {
    match price <= order.next_rate {
        true => Verdict::Bid(price),
        false => no(
            Reason::Dearer,
            format!(
                "the price is {price} units per second, and it takes at most {}",
                order.next_rate
            ),
        ),
    }
}

fn floor_and_step(order: &OpenOrder, floor: Rate) -> Verdict {
    match floor <= order.next_rate {
        true => Verdict::Bid(order.next_rate),
        false => no(
            Reason::FloorReached,
            format!(
                "the floor is {floor} units per second, and it takes at most {}",
                order.next_rate
            ),
        ),
    }
}

/// Has a program decide: it reads the order as a line of JSON, and answers with one.
async fn ask(program: &[String], patience: Duration, order: &OpenOrder) -> anyhow::Result<Answer> {
    let (name, args) = program.split_first().context("strategy.program names none")?;
    let mut child = tokio::process::Command::new(name)
        .args(args)
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("{name} cannot be run"))?;
    let mut line = serde_json::to_vec(order)?;
    line.push(b'\n');
    let talk = async {
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let (mut stdin, stdout) = stdin.zip(stdout).context("it has no input and output")?;
        // One that decides without reading is fine.
        let _unread = stdin.write_all(&line).await;
        drop(stdin);
        let mut answer = Vec::new();
        stdout.take(MAX_ANSWER).read_to_end(&mut answer).await?;
        let status = child.wait().await?;
        ensure!(status.success(), "it ended with {status}");
        let shown = || String::from_utf8_lossy(&answer).chars().take(80).collect::<String>();
        serde_json::from_slice(&answer).with_context(|| {
            format!(
                "it answered {:?}, and not {{\"bid\": \"…\"}} or {{\"decline\": \"…\"}}",
                shown()
            )
        })
    };
    let talked = tokio::time::timeout(patience, talk).await;
    talked
        .with_context(|| format!("{name} took longer than {} ms", patience.as_millis()))?
        .with_context(|| name.clone())
}

/// The provider, as its bidder knows it.
struct House {
    client: reqwest::Client,
    url: Url,
    token: Zeroizing<String>,
}

impl House {
    async fn send<B: Serialize + Sync>(
        &self,
        path: &str,
        body: Option<&B>,
    ) -> anyhow::Result<(StatusCode, String)> {
        let url = self.url.join(path)?;
        let request = match body {
            None => self.client.get(url),
            Some(body) => self.client.post(url).json(body),
        };
        let answer = request.bearer_auth(self.token.as_str()).send().await;
        let answer =
            answer.with_context(|| format!("the provider at {} does not answer", self.url))?;
        let status = answer.status();
        let text = answer.text().await?;
        match status {
            StatusCode::UNAUTHORIZED => bail!(Revoked),
            status => Ok((status, text)),
        }
    }
}

/// The token is not taken: nothing gets better by trying again.
#[derive(Debug, thiserror::Error)]
#[error(
    "the provider does not take this token; `roadstead provider addon enable bidder` makes one"
)]
struct Revoked;

/// On which facts it was decided, and when: the same facts are not decided on again for a while.
type Decided = BTreeMap<u64, ((Rate, Rate), Instant)>;

/// Bids until it is told to end.
pub(crate) async fn run(args: &Args) -> anyhow::Result<()> {
    let settings = read(&args.file)?;
    let name = args.token_file.display();
    let token = std::fs::read_to_string(&args.token_file).map(Zeroizing::new);
    let token = token.with_context(|| format!("the token in {name} cannot be read"))?;
    let url = &args.provider;
    ensure!(
        url.scheme() == "http",
        "--provider: {url} does not begin with http://, as http://127.0.0.1:9640 does"
    );
    // An image of this program alone has no certificates that could be loaded.
    let client = reqwest::Client::builder().timeout(PATIENCE).no_proxy().tls_certs_only([]);
    let house = House {
        client: client.build()?,
        url: url.clone(),
        token: Zeroizing::new(token.trim().to_owned()),
    };
    let mut decided = Decided::new();
    let mut tick = tokio::time::interval(Duration::from_millis(settings.poll_ms.max(100)));
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let bid = async {
        loop {
            tick.tick().await;
            if let Err(err) = look(&house, &settings.strategy, &mut decided).await {
                if err.is::<Revoked>() {
                    return Err(err);
                }
                tracing::warn!(
                    error = format!("{err:#}"),
                    "orders are looked at again in a moment"
                );
            }
        }
    };
    tokio::select! {
        ended = bid => ended,
        () = crate::interrupted() => Ok(()),
    }
}

async fn look(house: &House, strategy: &Strategy, decided: &mut Decided) -> anyhow::Result<()> {
    let (status, text) = house.send::<()>("addon/v1/orders", None).await?;
    ensure!(status.is_success(), "the provider does not tell of orders: {status}: {text}");
    let open: OpenOrders = serde_json::from_str(&text).context("the provider's answer")?;
    decided.retain(|id, _| open.orders.iter().any(|order| order.order == *id));
    for order in &open.orders {
        let facts = (order.next_rate, order.list_price);
        let known = decided.get(&order.order);
        let known = known.is_some_and(|(on, at)| *on == facts && at.elapsed() < AGAIN);
        if order.leads || order.obstacle.is_some() || known {
            continue;
        }
        let id = order.order;
        let (status, said) = match strategy.decide(order).await {
            Verdict::Bid(rate) => {
                let intent = Intent { order: id, rate };
                let sent = house.send("addon/v1/bids", Some(&intent)).await?;
                if sent.0.is_success() {
                    tracing::info!(order = id, "bid {rate} units per second for order {id}");
                }
                sent
            }
            Verdict::Decline(why) => {
                tracing::info!(order = id, reason = %why.reason, "no bid for order {id}: {}", why.words);
                house.send("addon/v1/declines", Some(&Decline { order: id, why })).await?
            }
        };
        match status {
            status if status.is_success() || status == StatusCode::CONFLICT => {
                decided.insert(id, (facts, Instant::now()));
            }
            status => tracing::warn!(order = id, "order {id}: {status}: {}", said.trim()),
        }
    }
    Ok(())
}

fn read(file: &Path) -> anyhow::Result<Settings> {
    let name = file.display();
    let text = std::fs::read_to_string(file).with_context(|| format!("{name} cannot be read"))?;
    check(&text).with_context(|| format!("{name} is wrong"))
}

/// Reads a bidder's configuration.
fn check(text: &str) -> anyhow::Result<Settings> {
    let settings: Settings = toml::from_str(text)?;
    match &settings.strategy {
        Strategy::FixedMargin { margin_bps } => {
            ensure!(*margin_bps <= 1_000_000, "strategy.margin_bps: {margin_bps} is above 1000000");
        }
        Strategy::FloorAndStep { floor_bps } => {
            ensure!(*floor_bps <= 1_000_000, "strategy.floor_bps: {floor_bps} is above 1000000");
        }
        Strategy::Scripted { program, timeout_ms } => {
            ensure!(!program.is_empty(), "strategy.program: it names no program");
            ensure!(
                (1..=60_000).contains(timeout_ms),
                "strategy.timeout_ms: {timeout_ms} is not between 1 and 60000"
            );
        }
    }
    Ok(settings)
}

/// Makes sure that a bidder will take its configuration.
pub(super) fn valid(text: &str) -> anyhow::Result<()> {
    check(text).map(drop)
}

#[cfg(test)]
mod tests {
    use alloy::primitives::{Address, B256};
    use protocol::amount::Amount;

    use super::*;

    fn order(list: u128, next: u128) -> OpenOrder {
        OpenOrder {
            order: 7,
            payer: Address::ZERO,
            pod: B256::ZERO,
            cpu: 100,
            memory: 64,
            storage: 0,
            coverage: Amount(0),
            max_rate: Rate(1_000),
            next_rate: Rate(next),
            leader: None,
            leads: false,
            bids: 0,
            deadline: 0,
            uri: "https://example.org/$(reboot)".into(),
            list_price: Rate(list),
            floor: Rate(list),
            obstacle: None,
        }
    }

    fn strategy(text: &str) -> Strategy {
        check(&format!("[strategy]\n{text}")).unwrap().strategy
    }

    async fn decide(text: &str, list: u128, next: u128) -> Result<u128, Reason> {
        match strategy(text).decide(&order(list, next)).await {
            Verdict::Bid(rate) => Ok(rate.0),
            Verdict::Decline(why) => Err(why.reason),
        }
    }

    #[tokio::test]
    async fn a_fixed_margin_is_bid_once_or_not_at_all() {
        let margin = "kind = \"fixed-margin\"\nmargin_bps = 1000";
        for (list, next, wanted) in [
            (100, 1_000, Ok(110)),
            (100, 110, Ok(110)),
            (100, 109, Err(Reason::Dearer)),
            // Rounded up.
            (101, 1_000, Ok(112)),
            (0, 1_000, Ok(0)),
            (u128::MAX, u128::MAX, Ok(u128::MAX)),
        ] {
            assert_eq!(decide(margin, list, next).await, wanted, "{list} {next}");
        }
    }

    #[tokio::test]
    async fn floor_and_step_undercuts_down_to_its_floor() {
        let floor = "kind = \"floor-and-step\"\nfloor_bps = 9001";
        for (list, next, wanted) in [
            (100, 1_000, Ok(1_000)),
            (100, 91, Ok(91)),
            // 90.01 is the floor, and 90 below it.
            (100, 90, Err(Reason::FloorReached)),
        ] {
            assert_eq!(decide(floor, list, next).await, wanted, "{list} {next}");
        }
    }

    #[tokio::test]
    async fn a_program_is_heard_in_time_and_within_bounds() {
        let check = async |line: &str, wanted: Result<u128, Reason>| {
            let program = serde_json::to_string(&["/bin/sh", "-c", line]).unwrap();
            let text = format!("kind = \"scripted\"\nprogram = {program}\ntimeout_ms = 3000");
            assert_eq!(decide(&text, 100, 200).await, wanted, "{line}");
        };
        check(
            r#"read -r order; case $order in *'"order":7'*) echo '{"bid":"150"}';; esac"#,
            Ok(150),
        )
        .await;
        check(r#"echo '{"decline":"not on Mondays"}'"#, Err(Reason::Declined)).await;
        check("echo 150", Err(Reason::Program)).await;
        check("exit 3", Err(Reason::Program)).await;
        check("while :; do echo 1111111111111111; done", Err(Reason::Program)).await;
        check("exec sleep 60", Err(Reason::Program)).await;
        let missing = "kind = \"scripted\"\nprogram = [\"/no/such/program\"]";
        assert_eq!(decide(missing, 100, 200).await, Err(Reason::Program));
    }

    #[test]
    fn mistakes_are_named() {
        for (text, wanted) in [
            ("strategy = { kind = \"greedy\" }", "greedy"),
            ("strategy = { kind = \"fixed-margin\", margin = 1 }", "margin"),
            ("strategy = { kind = \"fixed-margin\" }", "margin_bps"),
            ("strategy = { kind = \"scripted\", program = [] }", "strategy.program"),
            (
                "strategy = { kind = \"scripted\", program = [\"x\"], timeout_ms = 0 }",
                "strategy.timeout_ms: 0",
            ),
            ("pol_ms = 1\nstrategy = { kind = \"floor-and-step\", floor_bps = 1 }", "pol_ms"),
        ] {
            let err = format!("{:#}", check(text).unwrap_err());
            assert!(err.contains(wanted), "{text}: {err}");
        }
        valid(::provider::addons::Addon::Bidder.config()).unwrap();
    }
}
